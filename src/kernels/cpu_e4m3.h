// What the CPU twins that write e4m3 share, beside the arithmetic that CUDA has too. Their sources say
// fp-contract=off, which holds for what is inlined from here.
#pragma once
#include "kernels/cpu_math.h"
#include "kernels/e4m3_math.h"

namespace atelier::kernels::cpu {

template <class T>
ATELIER_INLINE float as_float(T v) {
  return static_cast<float>(load(v));
}

// The nearest e4m3, ties to even; 448 for all numbers beyond.
ATELIER_INLINE uint8_t e4m3_of(float v) {
  const uint32_t bits = e4m3::bits_of(v), magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude - (120u << 23) + 0x7ffffu + ((magnitude >> 20) & 1)) >> 20;
  // Below 2^-6 the float adder rounds: the last place of 2^14 is 2^-9, the smallest number.
  const uint32_t small = e4m3::bits_of(e4m3::float_of(magnitude) + 16384.0f) - (141u << 23);
  uint32_t out = magnitude < (121u << 23) ? small : normal;
  out = out > 0x7eu ? 0x7eu : out;
  out = magnitude > 0x7f800000u ? 0x7fu : out | ((bits >> 24) & 0x80u);
  return static_cast<uint8_t>(out);
}

// Sums of runs of neighbours, each in order.
template <class F>
ATELIER_INLINE double sum_over(int64_t channels, const F& f) {
  double sum = 0;
  for (int64_t c = 0; c < channels; c += e4m3::kRun) {
    const int64_t end = c + e4m3::kRun < channels ? c + e4m3::kRun : channels;
    float run = f(c);
    for (int64_t i = c + 1; i < end; ++i) run = e4m3::add(run, f(i));
    sum = e4m3::add(sum, static_cast<double>(run));
  }
  return sum;
}

}  // namespace atelier::kernels::cpu
