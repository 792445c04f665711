// Flow matching with Euler steps. Esser et al., SD3 (arXiv 2403.03206); upstream: diffusers
// scheduling_flow_match_euler_discrete.py.
#pragma once
#include <vector>

#include "sampling/sampler.h"

namespace atelier::sampling {

class FlowEuler : public Sampler {
 public:
  FlowEuler(const Json& config, const Call& call);
  std::span<const Step> steps() const override { return steps_; }
  std::span<const float> sigmas() const override { return sigmas_; }
  double init_noise_sigma() const override { return 1.0; }
  at::Tensor step(const at::Tensor& prediction, int i, const at::Tensor& x, const at::Tensor& noise) override;
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<FlowEuler>(*this); }

 private:
  std::vector<Step> steps_;
  std::vector<float> sigmas_;
};

}  // namespace atelier::sampling
