// The CPU twin of place into bytes of e4m3: float arithmetic that is rounded after every operation, for the
// same bytes as CUDA writes.
#include "kernels/cpu.h"
#include "kernels/cpu_e4m3.h"
#include "kernels/cpu_place.h"

#pragma GCC optimize("O3", "no-trapping-math", "fp-contract=off")

namespace atelier::kernels::cpu {
namespace {

struct ByteRule {
  Norm norm = Norm::kNone;
  double eps = 0;
  bool has_bias = false;
  alignas(64) float weight[kMaxHeadDim], bias[kMaxHeadDim];
};

template <class T>
ATELIER_INLINE void prepare_bytes(ByteRule& rule, const HeadRule& from, int64_t d) {
  rule.norm = from.norm;
  rule.eps = from.eps;
  rule.has_bias = from.bias != nullptr;
  const T *weight = static_cast<const T*>(from.weight), *bias = static_cast<const T*>(from.bias);
  for (int64_t i = 0; i < d; ++i) rule.weight[i] = weight == nullptr ? 1.0f : as_float(weight[i]);
  for (int64_t i = 0; rule.has_bias && i < d; ++i) rule.bias[i] = as_float(bias[i]);
}

ATELIER_INLINE void normalise_for_bytes(float* values, const ByteRule& rule, int64_t d) {
  if (rule.norm == Norm::kNone) return;
  float mean = 0;
  if (rule.norm == Norm::kLayer) {
    mean = e4m3::mean_of(sum_over(
                             d, [&](int64_t i) __attribute__((always_inline)) { return values[i]; }),
                         d);
  }
  const double squares = sum_over(
      d, [&](int64_t i) __attribute__((always_inline)) { return e4m3::squared_distance(values[i], mean); });
  const float inverse = e4m3::inverse_deviation(squares, d, rule.eps);
#pragma GCC ivdep
  for (int64_t i = 0; i < d; ++i) values[i] = e4m3::normalised(values[i], mean, inverse, rule.weight[i]);
  if (!rule.has_bias) return;
#pragma GCC ivdep
  for (int64_t i = 0; i < d; ++i) values[i] = e4m3::add(values[i], rule.bias[i]);
}

// kDim is the head's width where it is known when compiling, else 0.
template <class T, int kDim>
struct PlacingBytes {
  using Out = uint8_t;
  ByteRule q, k, v;

  ATELIER_INLINE void operator()(uint8_t* out, Which which, const T* in, int64_t stride, int64_t count,
                                 const Arith<T>* cos, const Arith<T>* sin, int64_t head_dim) const {
    const ByteRule& rule = which == Which::kQuery ? q : which == Which::kKey ? k : v;
    const int64_t d = kDim > 0 ? kDim : head_dim;
    for (int64_t h = 0; h < count; ++h, out += d, in += stride) {
      alignas(64) float values[kDim > 0 ? kDim : kMaxHeadDim];
      for (int64_t i = 0; i < d; ++i) values[i] = as_float(in[i]);
      normalise_for_bytes(values, rule, d);
      if (cos != nullptr) {
#pragma GCC ivdep
        for (int64_t i = 0; i < d / 2; ++i) {
          // NOLINTBEGIN(clang-analyzer-core*): values are loaded above, cos and sin come together
          const float x0 = values[2 * i], x1 = values[2 * i + 1];
          const float c = static_cast<float>(cos[i]), s = static_cast<float>(sin[i]);
          // NOLINTEND(clang-analyzer-core*)
          values[2 * i] = e4m3::turned_first(x0, x1, c, s);
          values[2 * i + 1] = e4m3::turned_second(x0, x1, c, s);
        }
      }
#pragma GCC ivdep
      for (int64_t i = 0; i < d; ++i) out[i] = e4m3_of(values[i]);
    }
  }
};

template <class T, int kDim>
ATELIER_INLINE void byte_tokens(const PlaceCall& call) {
  PlacingBytes<T, kDim> placing;
  prepare_bytes<T>(placing.q, call.rule_q, call.head_dim);
  prepare_bytes<T>(placing.k, call.rule_k, call.head_dim);
  place_tokens<T>(call, placing);
}

}  // namespace

ATELIER_CLONES void place_e4m3(const PlaceCall& call) {
  with_type(
      call.dtype, [&](auto type) __attribute__((always_inline)) {
        using T = decltype(type);
        switch (call.head_dim) {
          case 64:
            return byte_tokens<T, 64>(call);
          case 128:
            return byte_tokens<T, 128>(call);
          default:
            return byte_tokens<T, 0>(call);
        }
      });
}

}  // namespace atelier::kernels::cpu
