// The CPU twin of channel_norm.
#include <cmath>

#include "kernels/cpu.h"
#include "kernels/cpu_math.h"

#pragma GCC optimize("O3", "no-trapping-math")

namespace atelier::kernels::cpu {
namespace {

constexpr int64_t kLanes = 16;  // sums side by side, which the compiler keeps in vectors

template <class T>
ATELIER_INLINE Arith<T> sum_of_squares(const T* x, const T* bias, int64_t channels) {
  using A = Arith<T>;
  A lanes[kLanes] = {};
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int64_t count = channels - c < kLanes ? channels - c : kLanes;
    for (int64_t i = 0; i < count; ++i) {
      const A v = load(x[c + i]) + (bias ? load(bias[c + i]) : A(0));
      lanes[i] += v * v;
    }
  }
  A sum = 0;
  for (const A lane : lanes) sum += lane;
  return sum;
}

template <class T>
ATELIER_INLINE void normalise(const ChannelNormCall& call) {
  using A = Arith<T>;
  const Pixels& p = call.pixels;
  const T *x = static_cast<const T*>(p.x), *bias = static_cast<const T*>(p.bias);
  const T* weight = static_cast<const T*>(call.weight);
  T* out = static_cast<T*>(call.out);
  const bool is_silu = call.nonlinearity == Nonlinearity::kSilu;
  for (int64_t n = 0; n < p.batch * p.positions; ++n, x += p.channels, out += p.channels) {
    const A length = std::sqrt(sum_of_squares(x, bias, p.channels)), least = static_cast<A>(call.least);
    const A slope = static_cast<A>(call.scale) / (length > least ? length : least);
#pragma GCC ivdep
    for (int64_t c = 0; c < p.channels; ++c) {
      const A v = (load(x[c]) + (bias ? load(bias[c]) : A(0))) * slope * load(weight[c]);
      out[c] = round_to<T>(is_silu ? silu(v) : v);
    }
  }
}

}  // namespace

ATELIER_CLONES void channel_norm(const ChannelNormCall& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) { normalise<decltype(type)>(call); });
}

}  // namespace atelier::kernels::cpu
