// Which head of a placement goes where, for the CPU twins that differ in what they make of a head.
#pragma once
#include "kernels/calls.h"
#include "kernels/cpu_math.h"

namespace atelier::kernels::cpu {

enum class Which : uint8_t { kQuery, kKey, kValue };

template <class T>
ATELIER_INLINE const T* first(const Source& s, int64_t n, int64_t b, int64_t h) {
  return static_cast<const T*>(s.data) + n * s.token_stride + b * s.batch_stride + h * s.head_stride;
}

// placing(out, which, in, stride of heads, heads, cos, sin, head_dim) makes the heads of one source that one
// target owns, for one row (token and batch index) of the target, whose elements are Placing::Out. Values get
// no rope.
template <class T, class Placing>
ATELIER_INLINE void place_tokens(const PlaceCall& call, const Placing& placing) {
  using A = Arith<T>;
  using Out = typename Placing::Out;
  const int64_t d = call.head_dim;
  for (int64_t n = 0; n < call.n; ++n) {
    const A* cos = call.cos == nullptr ? nullptr : static_cast<const A*>(call.cos) + n * (d / 2);
    const A* sin = call.sin == nullptr ? nullptr : static_cast<const A*>(call.sin) + n * (d / 2);
    for (int64_t b = 0; b < call.batch; ++b) {
      const int64_t at = n * call.batch + b;
      // Into every clone, for the same bits as what is written out here.
      const auto keys_and_values = [&](void* kv, int64_t h, int64_t count) __attribute__((always_inline)) {
        const int64_t width = count * d;
        if (call.k.data != nullptr) {
          placing(static_cast<Out*>(kv) + 2 * at * width, Which::kKey, first<T>(call.k, n, b, h),
                  call.k.head_stride, count, cos, sin, d);
        }
        if (call.v.data != nullptr) {
          placing(static_cast<Out*>(kv) + (2 * at + 1) * width, Which::kValue, first<T>(call.v, n, b, h),
                  call.v.head_stride, count, static_cast<const A*>(nullptr), static_cast<const A*>(nullptr),
                  d);
        }
      };
      for (int64_t i = 0; i < call.target_count; ++i) {
        const Target& t = call.targets[i];
        const int64_t width = t.heads * d, h = t.first_head;
        if (width == 0) continue;
        if (call.q.data != nullptr) {
          placing(static_cast<Out*>(t.q) + at * width, Which::kQuery, first<T>(call.q, n, b, h),
                  call.q.head_stride, t.heads, cos, sin, d);
        }
        keys_and_values(t.kv, h, t.heads);
      }
      for (int64_t i = 0; i < call.kv_copy_count; ++i) keys_and_values(call.kv_copies[i], 0, call.heads);
    }
  }
}

}  // namespace atelier::kernels::cpu
