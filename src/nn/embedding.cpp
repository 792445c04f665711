#include "nn/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

#include <cmath>

#include "nn/builder.h"

namespace atelier::nn {

at::Tensor sinusoid(const at::Tensor& values, int64_t width) {
  const int64_t half = width / 2;
  // Rounded once, from double: a library's float exp differs in the last bit from one CPU to the next, and
  // numbers in the thousands make an angle of it.
  const auto exponent =
      at::arange(half, values.options().dtype(at::kFloat)) * static_cast<float>(-std::log(10000.0));
  const auto frequency = (exponent / static_cast<float>(half)).to(at::kDouble).exp().to(at::kFloat);
  const auto angles = values.to(at::kFloat).unsqueeze(-1) * frequency;
  return at::cat({angles.cos(), angles.sin()}, -1);
}

at::Tensor SiluMlp::operator()(const at::Tensor& x) const {
  return second(at::silu(first(x)));
}

SiluMlp silu_mlp(const Builder& b, int64_t in, int64_t between, int64_t out) {
  return {b.linear("linear_1", in, between), b.linear("linear_2", between, out)};
}

}  // namespace atelier::nn
