// The CPU twin of softmax.
#include <cmath>

#include "kernels/cpu.h"
#include "kernels/cpu_math.h"

namespace atelier::kernels::cpu {
namespace {

template <class T>
void softmax_rows(const SoftmaxCall& call) {
  using A = Arith<T>;
  const auto scale = static_cast<A>(call.scale);
  for (int64_t r = 0; r < call.rows; ++r) {
    const A* scores = static_cast<const A*>(call.scores) + r * call.columns;
    T* out = static_cast<T*>(call.out) + r * call.columns;
    A most = scores[0];
    for (int64_t c = 1; c < call.columns; ++c) most = most > scores[c] ? most : scores[c];
    A sum = 0;
    for (int64_t c = 0; c < call.columns; ++c) sum += std::exp((scores[c] - most) * scale);
    const A share = A(1) / sum;
    for (int64_t c = 0; c < call.columns; ++c) {
      out[c] = round_to<T>(std::exp((scores[c] - most) * scale) * share);
    }
    if (call.lse != nullptr) static_cast<A*>(call.lse)[r] = most * scale + std::log(sum);
  }
}

}  // namespace

void softmax(const SoftmaxCall& call) {
  with_type(call.dtype, [&](auto type) { softmax_rows<decltype(type)>(call); });
}

}  // namespace atelier::kernels::cpu
