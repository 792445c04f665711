#include "nn/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>

#include <vector>

namespace atelier::nn {

Rope rope_of(const at::Tensor& at, std::span<const int64_t> axes, double theta,
             const at::TensorOptions& options) {
  std::vector<at::Tensor> angles;
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto exponent =
        at::arange(0, axes[i], 2, at::TensorOptions(at::kDouble)) / static_cast<double>(axes[i]);
    const auto frequency = at::pow(theta, exponent).reciprocal();
    angles.push_back(at.select(1, static_cast<int64_t>(i)).to(at::kCPU, at::kDouble).unsqueeze(1) *
                     frequency);
  }
  const auto all = at::cat(angles, 1);
  const auto type = options.dtype() == at::kDouble ? at::kDouble : at::kFloat;
  const auto place = [&](const at::Tensor& t) { return t.to(type).to(options.device()).contiguous(); };
  return {place(all.cos()), place(all.sin())};
}

}  // namespace atelier::nn
