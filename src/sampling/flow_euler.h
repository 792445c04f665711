// Flow matching with Euler steps. Esser et al., SD3 (arXiv 2403.03206); upstream: diffusers
// scheduling_flow_match_euler_discrete.py.
#pragma once
#include "sampling/planned_sampler.h"

namespace atelier::sampling {

class FlowEuler : public PlannedSampler {
 public:
  FlowEuler(const Json& config, const Call& call);
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<FlowEuler>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor& noise) override;

 private:
  bool stochastic_;  // each step goes to the clean picture and adds new noise
};

}  // namespace atelier::sampling
