// The CPU twin of place.
#include "kernels/cpu_place.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu.h"

// Sums over a head may be split over vector lanes.
#pragma GCC optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")

namespace atelier::kernels::cpu {
namespace {

// A head rule with its weights in the type we compute in.
template <class A>
struct Rule {
  Norm norm;
  A eps;
  alignas(64) A weight[kMaxHeadDim], bias[kMaxHeadDim];
};

template <class T>
ATELIER_INLINE void prepare(Rule<Arith<T>>& rule, const HeadRule& from, int64_t d) {
  using A = Arith<T>;
  rule.norm = from.norm;
  rule.eps = static_cast<A>(from.eps);
  const T *weight = static_cast<const T*>(from.weight), *bias = static_cast<const T*>(from.bias);
  for (int64_t i = 0; i < d; ++i) rule.weight[i] = weight == nullptr ? A(1) : load(weight[i]);
  for (int64_t i = 0; i < d; ++i) rule.bias[i] = bias == nullptr ? A(0) : load(bias[i]);
}

template <class A>
ATELIER_INLINE void normalise(A* values, const Rule<A>& rule, int64_t d) {
  if (rule.norm == Norm::kNone) return;
  A mean = 0;
  if (rule.norm == Norm::kLayer) {
    for (int64_t i = 0; i < d; ++i) mean += values[i];
    mean /= static_cast<A>(d);
  }
  A squares = 0;
  for (int64_t i = 0; i < d; ++i) squares += (values[i] - mean) * (values[i] - mean);
  const A inverse = A(1) / std::sqrt(squares / static_cast<A>(d) + rule.eps);
  for (int64_t i = 0; i < d; ++i) values[i] = (values[i] - mean) * inverse * rule.weight[i] + rule.bias[i];
}

// kDim is the head's width where it is known when compiling, else 0.
template <class T, int kDim>
ATELIER_INLINE void head(T* out, const T* in, const Rule<Arith<T>>& rule, const Arith<T>* cos,
                         const Arith<T>* sin, int64_t head_dim) {
  using A = Arith<T>;
  const int64_t d = kDim > 0 ? kDim : head_dim;
  alignas(64) A values[kDim > 0 ? kDim : kMaxHeadDim];
  for (int64_t i = 0; i < d; ++i) values[i] = load(in[i]);
  normalise(values, rule, d);
  if (cos != nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < d / 2; ++i) {
      const A x0 = values[2 * i], x1 = values[2 * i + 1];  // NOLINT(clang-analyzer-core*): loaded above
      out[2 * i] = round_to<T>(x0 * cos[i] - x1 * sin[i]);
      out[2 * i + 1] = round_to<T>(x0 * sin[i] + x1 * cos[i]);
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < d; ++i) out[i] = round_to<T>(values[i]);
  }
}

// Places the heads of one source that one target owns, for one row (token and batch index) of the target.
template <class T, int kDim>
ATELIER_INLINE void heads(T* out, const T* in, int64_t stride, int64_t count, const Rule<Arith<T>>& rule,
                          const Arith<T>* cos, const Arith<T>* sin, int64_t d) {
  if (rule.norm == Norm::kNone && cos == nullptr) {
    for (int64_t h = 0; h < count; ++h)
      std::memcpy(out + h * d, in + h * stride, static_cast<size_t>(d) * sizeof(T));
  } else {
    for (int64_t h = 0; h < count; ++h) head<T, kDim>(out + h * d, in + h * stride, rule, cos, sin, d);
  }
}

// The three kinds of heads that a call places.
template <class T, int kDim>
struct Placing {
  using Out = T;
  Rule<Arith<T>> q, k, v;

  ATELIER_INLINE void operator()(T* out, Which which, const T* in, int64_t stride, int64_t count,
                                 const Arith<T>* cos, const Arith<T>* sin, int64_t d) const {
    const auto& rule = which == Which::kQuery ? q : which == Which::kKey ? k : v;
    heads<T, kDim>(out, in, stride, count, rule, cos, sin, d);
  }
};

template <class T, int kDim>
ATELIER_INLINE void tokens(const PlaceCall& call) {
  Placing<T, kDim> placing;
  prepare<T>(placing.q, call.rule_q, call.head_dim);
  prepare<T>(placing.k, call.rule_k, call.head_dim);
  placing.v.norm = Norm::kNone;
  place_tokens<T>(call, placing);
}

}  // namespace

ATELIER_CLONES void place(const PlaceCall& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) {
        using T = decltype(type);
        switch (call.head_dim) {
          case 32:
            return tokens<T, 32>(call);
          case 64:
            return tokens<T, 64>(call);
          case 128:
            return tokens<T, 128>(call);
          default:
            return tokens<T, 0>(call);
        }
      });
}

}  // namespace atelier::kernels::cpu
