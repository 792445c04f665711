// Conversions and vector helpers of the CPU twins. Everything is inlined into one entry point per kernel,
// which the compiler clones per instruction set; loops are plain and free of branches so that it can
// vectorise them.
#pragma once
#include <cstdint>
#include <type_traits>

#include "kernels/types.h"

#define ATELIER_INLINE [[gnu::always_inline]] inline

// A second copy of an entry point for CPUs with AVX2 and FMA, chosen when the program starts. The sanitizers
// cannot run the choosing, which happens before they are set up.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ATELIER_CLONES __attribute__((target_clones("default", "arch=x86-64-v3")))
#else
#define ATELIER_CLONES
#endif

namespace atelier::kernels::cpu {

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

// The type that a kernel computes in.
template <class T>
using Arith = std::conditional_t<std::is_same_v<T, double>, double, float>;

// std::bit_cast, which is not inlined into a caller with other optimisation options.
template <class To, class From>
ATELIER_INLINE To bits_as(From v) {
  return __builtin_bit_cast(To, v);
}

ATELIER_INLINE float load(float v) {
  return v;
}
ATELIER_INLINE double load(double v) {
  return v;
}
ATELIER_INLINE float load(BF16 v) {
  return bits_as<float>(static_cast<uint32_t>(v.bits) << 16);
}

ATELIER_INLINE float load(F16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000) << 16, magnitude = v.bits & 0x7fff;
  const uint32_t shifted = magnitude << 13;
  const uint32_t normal = shifted + (magnitude >= 0x7c00 ? 224u << 23 : 112u << 23);
  // A subnormal's bits, under the exponent of 2^-14, are 2^-14 too much.
  const float small = bits_as<float>(shifted + (113u << 23)) - bits_as<float>(113u << 23);
  return bits_as<float>(sign | (magnitude < 0x400 ? bits_as<uint32_t>(small) : normal));
}

template <class T>
ATELIER_INLINE T round_to(Arith<T> v) {
  if constexpr (std::is_same_v<T, BF16>) {
    const uint32_t bits = bits_as<uint32_t>(v);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return {static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0u : rounded)};
  } else if constexpr (std::is_same_v<T, F16>) {
    const uint32_t bits = bits_as<uint32_t>(v), magnitude = bits & 0x7fffffff;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
    // Below 2^-14 the float adder rounds: 0.5's last place is the smallest half.
    const uint32_t small = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - (126u << 23);
    uint32_t half = magnitude < 0x38800000 ? small : normal;
    half = magnitude >= 0x477ff000 ? 0x7c00u : half;
    half = magnitude > 0x7f800000 ? 0x7e00u : half;
    return {static_cast<uint16_t>(half | ((bits >> 16) & 0x8000))};
  } else {
    return v;
  }
}

// e^v for v in [-87, 88]: Cephes' expf (range reduction by ln 2 in two parts, a polynomial of degree 5),
// which the compiler can vectorise; the C library's cannot be.
ATELIER_INLINE float exponential(float v) {
  const float scaled = v * 1.44269504088896341f;
  const int32_t power = static_cast<int32_t>(scaled + (scaled < 0 ? -0.5f : 0.5f));
  const float whole = static_cast<float>(power);
  const float r = (v - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * bits_as<float>((power + 127) << 23);
}

// v / (1 + e^-v)
ATELIER_INLINE float silu(float v) {
  const float below = v > 87.0f ? -87.0f : -v;
  return v / (1.0f + exponential(below > 88.0f ? 88.0f : below));
}
ATELIER_INLINE double silu(double v) {
  return v / (1.0 + __builtin_exp(-v));
}

// Calls f with a value of the element type.
template <class F>
ATELIER_INLINE void with_type(ElementType dtype, const F& f) {
  switch (dtype) {
    case ElementType::kF32:
      return f(float{});
    case ElementType::kF64:
      return f(double{});
    case ElementType::kBF16:
      return f(BF16{});
    case ElementType::kF16:
      return f(F16{});
  }
}

}  // namespace atelier::kernels::cpu
