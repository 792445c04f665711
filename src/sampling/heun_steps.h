// Heun's method, for every sampler whose latents move by a derivative times a difference of sigmas.
#pragma once
#include "sampling/planned_sampler.h"

namespace atelier::sampling {

// Each step of inference but the last becomes two of the plan: to the next sigma, and again from where it
// began, with the mean of the derivatives at both ends (Karras et al., arXiv 2206.00364, algorithm 1).
// sigmas: one more than steps, the last 0; they and the times are doubled as the reference doubles them.
SamplerPlan doubled(const SamplerPlan& plan);

class HeunSteps {
 public:
  // derivative: at x, of plan step i, before the first half or at the end of the second. sigmas: of
  // the doubled plan.
  at::Tensor advance(const at::Tensor& derivative, size_t i, const at::Tensor& x,
                     std::span<const float> sigmas);

 private:
  at::Tensor from_, first_;  // of the step that is half done
};

}  // namespace atelier::sampling
