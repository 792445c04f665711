#include "weights/convert.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstring>

namespace atelier::weights {
namespace {

// Below the size at which torch would share an operation among threads.
constexpr int64_t kBlock = 16384;

// An element is NaN or infinite if all bits of its exponent are set.
template <class Bits>
bool any_full(const void* data, int64_t count, Bits exponent) {
  constexpr int64_t kLanes = 64;
  const auto* bytes = static_cast<const std::byte*>(data);
  Bits lanes[kLanes];
  Bits found = 0;
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = std::min(kLanes, count - i);
    if (n < kLanes) std::memset(lanes, 0, sizeof lanes);
    std::memcpy(lanes, bytes + i * static_cast<int64_t>(sizeof(Bits)), static_cast<size_t>(n) * sizeof(Bits));
    for (int64_t k = 0; k < kLanes; ++k) found |= static_cast<Bits>((lanes[k] & exponent) == exponent);
  }
  return found != 0;
}

}  // namespace

std::byte* Elements::at(int64_t element) const {
  return static_cast<std::byte*>(data) + element * static_cast<int64_t>(c10::elementSize(dtype));
}

void convert(Elements to, Elements from, int64_t count) {
  const c10::InferenceMode no_grad;
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t n = std::min(kBlock, count - i);
    at::from_blob(to.at(i), {n}, at::TensorOptions(to.dtype))
        .copy_(at::from_blob(from.at(i), {n}, at::TensorOptions(from.dtype)));
  }
}

bool has_non_finite(Elements elements, int64_t count) {
  switch (elements.dtype) {
    case at::kDouble:
      return any_full<uint64_t>(elements.data, count, 0x7ff0000000000000);
    case at::kFloat:
      return any_full<uint32_t>(elements.data, count, 0x7f800000);
    case at::kHalf:
      return any_full<uint16_t>(elements.data, count, 0x7c00);
    case at::kBFloat16:
      return any_full<uint16_t>(elements.data, count, 0x7f80);
    case at::kFloat8_e5m2:
      return any_full<uint8_t>(elements.data, count, 0x7c);
    case at::kFloat8_e4m3fn:
      return any_full<uint8_t>(elements.data, count, 0x7f);
    default:
      return false;
  }
}

}  // namespace atelier::weights
