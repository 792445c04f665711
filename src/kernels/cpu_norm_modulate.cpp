// The CPU twin of norm_modulate.
#include <cmath>

#include "kernels/cpu.h"
#include "kernels/cpu_math.h"

// Sums may be split over vector lanes.
#pragma GCC optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")

namespace atelier::kernels::cpu {
namespace {

// Sum of f(c) over a row, in four independent chains to hide the adder's latency.
template <class A, class F>
ATELIER_INLINE A sum_over(int64_t channels, const F& f) {
  const int64_t quarter = channels / 4;
  A s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (int64_t c = 0; c < quarter; ++c) {
    s0 += f(c);
    s1 += f(c + quarter);
    s2 += f(c + 2 * quarter);
    s3 += f(c + 3 * quarter);
  }
  for (int64_t c = 4 * quarter; c < channels; ++c) s0 += f(c);
  return (s0 + s1) + (s2 + s3);
}

template <class T>
ATELIER_INLINE void row(T* out, const T* x, const T* shift, const T* scale, const NormModulateCall& call) {
  using A = Arith<T>;
  const int64_t channels = call.channels;
  const A mean = sum_over<A>(
                     channels, [&](int64_t c) __attribute__((always_inline)) { return load(x[c]); }) /
                 static_cast<A>(channels);
  const A squares = sum_over<A>(
      channels, [&](int64_t c) __attribute__((always_inline)) {
        const A d = load(x[c]) - mean;
        return d * d;
      });
  const A inverse = A(1) / std::sqrt(squares / static_cast<A>(channels) + static_cast<A>(call.eps));
#pragma GCC ivdep
  for (int64_t c = 0; c < channels; ++c) {
    out[c] = round_to<T>((load(x[c]) - mean) * inverse * (A(1) + load(scale[c])) + load(shift[c]));
  }
}

template <class T>
ATELIER_INLINE void norm_modulate_rows(const NormModulateCall& call) {
  for (int64_t n = 0; n < call.n; ++n) {
    for (int64_t b = 0; b < call.batch; ++b) {
      const int64_t at = (n * call.batch + b) * call.channels, mod = b * call.mod_stride;
      row(static_cast<T*>(call.out) + at, static_cast<const T*>(call.x) + at,
          static_cast<const T*>(call.shift) + mod, static_cast<const T*>(call.scale) + mod, call);
    }
  }
}

}  // namespace

ATELIER_CLONES void norm_modulate(const NormModulateCall& call) {
  with_type(
      call.dtype, [&](auto type)
                      __attribute__((always_inline)) { norm_modulate_rows<decltype(type)>(call); });
}

}  // namespace atelier::kernels::cpu
