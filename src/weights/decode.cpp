#include "weights/decode.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace atelier::weights {
namespace {

using Bytes = const uint8_t*;

template <class T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

float half(Bytes from) {
  const auto bits = load<uint16_t>(from);
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float sign = bits >> 15 != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction == 0 ? sign * std::numeric_limits<float>::infinity() : std::nanf("");
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return std::bit_cast<float>(static_cast<uint32_t>(bits >> 15) << 31 |
                              static_cast<uint32_t>(exponent + 112) << 23 |
                              static_cast<uint32_t>(fraction) << 13);
}

// All values of an 8-bit float with so many bits of exponent (bias 2^(bits-1) - 1). `is_finite`: no
// infinities, only the pattern of all ones is NaN (e4m3fn).
std::array<float, 256> table_of_bytes(int exponent_bits, bool is_finite) {
  std::array<float, 256> table{};
  const int mantissa_bits = 7 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int top = (1 << exponent_bits) - 1, ones = (1 << mantissa_bits) - 1;
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> mantissa_bits & top, fraction = code & ones;
    float value = exponent == 0
                      ? std::ldexp(static_cast<float>(fraction), 1 - bias - mantissa_bits)
                      : std::ldexp(static_cast<float>(fraction + ones + 1), exponent - bias - mantissa_bits);
    if (exponent == top && is_finite && fraction == ones) value = std::nanf("");
    if (exponent == top && !is_finite)
      value = fraction == 0 ? std::numeric_limits<float>::infinity() : std::nanf("");
    table[static_cast<size_t>(code)] = code > 127 ? -value : value;
  }
  return table;
}

const std::array<float, 256>& table_of(DType dtype) {
  static const auto e4m3 = table_of_bytes(4, true), e5m2 = table_of_bytes(5, false);
  return dtype == DType::kF8E4M3 ? e4m3 : e5m2;
}

// The low and the high four bits of 16 bytes are elements 0-15 and 16-31.
int nibble(Bytes q, int i) {
  return i < 16 ? q[i] & 15 : q[i - 16] >> 4;
}

// Q4_0, Q4_1, Q5_0, Q5_1: 32 elements; a scale, perhaps a minimum, perhaps a fifth bit each, four bits each.
template <bool has_minimum, bool has_fifth>
void decode_32(Bytes from, float* to) {
  const float d = half(from), m = has_minimum ? half(from + 2) : 0.0f;
  Bytes q = from + (has_minimum ? 4 : 2);
  const uint32_t fifth = has_fifth ? load<uint32_t>(q) : 0;
  q += has_fifth ? 4 : 0;
  constexpr int kMiddle = has_minimum ? 0 : has_fifth ? 16 : 8;
  for (int i = 0; i < 32; ++i) {
    const int high = has_fifth ? static_cast<int>(fifth >> i & 1) << 4 : 0;
    to[i] = d * static_cast<float>((nibble(q, i) | high) - kMiddle) + m;
  }
}

void decode_q8_0(Bytes from, float* to) {
  const float d = half(from);
  for (int i = 0; i < 32; ++i) to[i] = d * static_cast<float>(static_cast<int8_t>(from[2 + i]));
}

// Eight scales and eight minima of six bits each in twelve bytes.
struct ScaleMin {
  int scale, minimum;
};
ScaleMin scale_min(Bytes packed, int i) {
  if (i < 4) return {packed[i] & 63, packed[i + 4] & 63};
  const int both = packed[i + 4];
  return {(both & 15) | (packed[i - 4] >> 6) << 4, both >> 4 | (packed[i] >> 6) << 4};
}

// Q4_K, Q5_K: 256 elements in eight groups of 32, two of which share 32 bytes of four bits.
template <bool has_fifth>
void decode_k(Bytes from, float* to) {
  const float d = half(from), least = half(from + 2);
  Bytes packed = from + 4, fifth = from + 16, q = fifth + (has_fifth ? 32 : 0);
  for (int group = 0; group < 8; ++group) {
    const auto [scale, minimum] = scale_min(packed, group);
    const float a = d * static_cast<float>(scale), b = least * static_cast<float>(minimum);
    for (int i = 0; i < 32; ++i) {
      const int low = q[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
      const int high = has_fifth ? (fifth[i] >> group & 1) << 4 : 0;
      to[group * 32 + i] = a * static_cast<float>(low | high) - b;
    }
  }
}

// 256 elements in sixteen groups of 16: four bits, two bits, a signed scale per group.
void decode_q6_k(Bytes from, float* to) {
  Bytes low = from, high = from + 128, scales = from + 192;
  const float d = half(from + 208);
  for (int i = 0; i < 256; ++i) {
    const int piece = i / 128, quarter = i / 32 % 4;  // of 128 elements; of 32
    const int four = low[piece * 64 + i % 64] >> (quarter / 2 * 4) & 15;
    const int two = high[piece * 32 + i % 32] >> (quarter * 2) & 3;
    const auto scale = static_cast<float>(static_cast<int8_t>(scales[i / 16]));
    to[i] = d * scale * static_cast<float>((four | two << 4) - 32);
  }
}

using BlockDecoder = void (*)(Bytes, float*);

BlockDecoder block_decoder(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return decode_32<false, false>;
    case DType::kQ4_1:
      return decode_32<true, false>;
    case DType::kQ5_0:
      return decode_32<false, true>;
    case DType::kQ5_1:
      return decode_32<true, true>;
    case DType::kQ8_0:
      return decode_q8_0;
    case DType::kQ4_K:
      return decode_k<false>;
    case DType::kQ5_K:
      return decode_k<true>;
    case DType::kQ6_K:
      return decode_q6_k;
    default:
      return nullptr;
  }
}

float element(DType dtype, Bytes from) {
  switch (dtype) {
    case DType::kF64:
      return static_cast<float>(load<double>(from));
    case DType::kF32:
      return load<float>(from);
    case DType::kF16:
      return half(from);
    default:
      ENSURE(dtype == DType::kBF16);
      return std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(from)) << 16);
  }
}

}  // namespace

bool can_decode(DType dtype) {
  return !is_integer(dtype) && dtype != DType::kF4 && dtype != DType::kF8E8M0;
}

void decode(DType dtype, const std::byte* from, int64_t blocks, float* to) {
  ENSURE(can_decode(dtype));
  auto bytes = reinterpret_cast<Bytes>(from);
  const auto [elements, size] = block_of(dtype);
  if (const auto decoder = block_decoder(dtype)) {
    for (int64_t i = 0; i < blocks; ++i) decoder(bytes + i * size, to + i * elements);
  } else if (size == 1) {
    const auto& table = table_of(dtype);
    for (int64_t i = 0; i < blocks; ++i) to[i] = table[bytes[i]];
  } else {
    for (int64_t i = 0; i < blocks; ++i) to[i] = element(dtype, bytes + i * size);
  }
}

}  // namespace atelier::weights
