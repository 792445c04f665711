// The arithmetic that both implementations of what writes e4m3 share, so that they cannot differ: C++17,
// inlined into host and device code. Every operation is rounded once and none is contracted: on the device by
// intrinsics, on the host because its sources say fp-contract=off; but for the fused ones that are asked for.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define ATELIER_E4M3_INLINE __device__ __forceinline__
#else
#define ATELIER_E4M3_INLINE [[gnu::always_inline]] inline
#endif

namespace atelier::kernels::e4m3 {

#ifdef __CUDACC__
ATELIER_E4M3_INLINE uint32_t bits_of(float v) {
  return __float_as_uint(v);
}
ATELIER_E4M3_INLINE float float_of(uint32_t bits) {
  return __uint_as_float(bits);
}
ATELIER_E4M3_INLINE float add(float a, float b) {
  return __fadd_rn(a, b);
}
ATELIER_E4M3_INLINE float times(float a, float b) {
  return __fmul_rn(a, b);
}
ATELIER_E4M3_INLINE float fused(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
// 1 / v for v in [1, 2^125], rounded as __frcp_rn does, without its way out for numbers beyond.
ATELIER_E4M3_INLINE float reciprocal(float v) {
  float near;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(v));
  return __fmaf_rn(__fmaf_rn(-v, near, 1.0f), near, near);
}
// Of two numbers; the second one, a number, where the first is NaN.
ATELIER_E4M3_INLINE float max_of(float v, float other) {
  return fmaxf(v, other);
}
ATELIER_E4M3_INLINE float min_of(float v, float other) {
  return fminf(v, other);
}
ATELIER_E4M3_INLINE double root(double v) {
  return __dsqrt_rn(v);
}
ATELIER_E4M3_INLINE double quotient(double a, double b) {
  return __ddiv_rn(a, b);
}
ATELIER_E4M3_INLINE double add(double a, double b) {
  return __dadd_rn(a, b);
}
#else
ATELIER_E4M3_INLINE uint32_t bits_of(float v) {
  return __builtin_bit_cast(uint32_t, v);
}
ATELIER_E4M3_INLINE float float_of(uint32_t bits) {
  return __builtin_bit_cast(float, bits);
}
ATELIER_E4M3_INLINE float add(float a, float b) {
  return a + b;
}
ATELIER_E4M3_INLINE float times(float a, float b) {
  return a * b;
}
ATELIER_E4M3_INLINE float fused(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
ATELIER_E4M3_INLINE float reciprocal(float v) {
  return 1.0f / v;
}
ATELIER_E4M3_INLINE float max_of(float v, float other) {
  return v > other ? v : other;
}
ATELIER_E4M3_INLINE float min_of(float v, float other) {
  return v < other ? v : other;
}
ATELIER_E4M3_INLINE double root(double v) {
  return __builtin_sqrt(v);
}
ATELIER_E4M3_INLINE double quotient(double a, double b) {
  return a / b;
}
ATELIER_E4M3_INLINE double add(double a, double b) {
  return a + b;
}
#endif

// Sums of this many neighbours are float, in order; the sums of those are double: a row's 24-bit numbers are
// then added exactly in whatever order, unless they span 2^18.
constexpr int kRun = 8;

// v, unless it is not above `most` (or NaN).
ATELIER_E4M3_INLINE float larger(float most, float v) {
  return max_of(float_of(bits_of(v) & 0x7fffffffu), most);
}

struct RowScale {
  float scale, inverse;
};

// most: the largest magnitude of the row. 448 is 1.75 * 2^8: the exponent is most's, less 8, and one more
// where most's mantissa is above 1.75.
ATELIER_E4M3_INLINE RowScale scale_of(float most) {
  const uint32_t bits = bits_of(most);
  const int32_t above = (bits & 0x7fffffu) > 0x600000u ? 1 : 0;
  int32_t field = static_cast<int32_t>(bits >> 23) - 8 + above;
  field = field < 1 ? 1 : field;
  field = bits == 0 ? 127 : field;
  const uint32_t scale = static_cast<uint32_t>(field) << 23, inverse = static_cast<uint32_t>(254 - field)
                                                                       << 23;
  const bool is_finite = bits < 0x7f800000u;
  return {float_of(is_finite ? scale : 0x7fc00000u), float_of(is_finite ? inverse : 0x7fc00000u)};
}

struct Moments {
  float mean, inverse;
};
ATELIER_E4M3_INLINE float mean_of(double sum, int64_t channels) {
  return static_cast<float>(quotient(sum, static_cast<double>(channels)));
}
// 1 / sqrt(variance + eps).
ATELIER_E4M3_INLINE float inverse_deviation(double squares, int64_t channels, double eps) {
  return static_cast<float>(quotient(1.0, root(add(quotient(squares, static_cast<double>(channels)), eps))));
}
ATELIER_E4M3_INLINE float modulated(float x, const Moments& m, float scale, float shift) {
  return add(times(times(add(x, -m.mean), m.inverse), add(1.0f, scale)), shift);
}
// A head's number, and a pair of them turned by an angle.
ATELIER_E4M3_INLINE float normalised(float x, float mean, float inverse, float weight) {
  return times(times(add(x, -mean), inverse), weight);
}
ATELIER_E4M3_INLINE float turned_first(float x0, float x1, float cos, float sin) {
  return add(times(x0, cos), -times(x1, sin));
}
ATELIER_E4M3_INLINE float turned_second(float x0, float x1, float cos, float sin) {
  return add(times(x0, sin), times(x1, cos));
}
ATELIER_E4M3_INLINE float squared_distance(float x, float mean) {
  const float d = add(x, -mean);
  return times(d, d);
}

// v / (1 + e^-2u), u = sqrt(2/pi) (v + 0.044715 v^3); the exponential as 2^w, w split into an integer
// and a rest in [-1/2, 1/2], whose power is a polynomial with an error of 3.5e-6: a ten-thousandth of a
// step of e4m3.
ATELIER_E4M3_INLINE float gelu(float v) {
  float w = times(v, fused(-0.1029432395800235f, times(v, v), -2.302208198144325f));
  w = min_of(max_of(w, -120.0f), 120.0f);
  const float shifted = add(w, 12582912.0f);  // 1.5 * 2^23: the integer lies in the last bits
  const float rest = add(w, -add(shifted, -12582912.0f));
  float p = fused(0.009666368515387469f, rest, 0.055921975842256264f);
  p = fused(p, rest, 0.24022349038020335f);
  p = fused(p, rest, 0.693121045203427f);
  p = fused(p, rest, 1.0f);
  return times(v, reciprocal(add(1.0f, float_of(bits_of(p) + (bits_of(shifted) << 23)))));
}

}  // namespace atelier::kernels::e4m3
