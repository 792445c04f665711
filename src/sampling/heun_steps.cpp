#include "sampling/heun_steps.h"

#include <ATen/TensorOperators.h>

namespace atelier::sampling {
namespace {

// The first, the others twice; with `last` the last once.
template <class T>
std::vector<T> doubled_inside(const std::vector<T>& values, bool last) {
  std::vector<T> out;
  for (size_t i = 0; i < values.size(); ++i) {
    out.push_back(values[i]);
    if (i > 0 && !(last && i + 1 == values.size())) out.push_back(values[i]);
  }
  return out;
}

}  // namespace

SamplerPlan doubled(const SamplerPlan& plan) {
  return {.steps = doubled_inside(plan.steps, false),
          .sigmas = doubled_inside(plan.sigmas, true),
          .levels = doubled_inside(plan.levels, true),
          .init_noise_sigma = plan.init_noise_sigma};
}

at::Tensor HeunSteps::advance(const at::Tensor& derivative, size_t i, const at::Tensor& x,
                              std::span<const float> sigmas) {
  if (i % 2 == 0) {
    from_ = x.clone(), first_ = derivative;  // the caller's memory may change
    return x + (sigmas[i + 1] - sigmas[i]) * derivative;
  }
  return from_ + (sigmas[i] - sigmas[i - 1]) * (0.5 * (first_ + derivative));
}

}  // namespace atelier::sampling
