// What nn/ordered.h computes in: double for double, float for every other floating type.
#pragma once
#include <ATen/core/Tensor.h>

namespace atelier::nn {

inline at::ScalarType wide_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// f of a value of such a type.
template <class F>
void with_wide(at::ScalarType type, const F& f) {
  type == at::kDouble ? f(double{}) : f(float{});
}

}  // namespace atelier::nn
