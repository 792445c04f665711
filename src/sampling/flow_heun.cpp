// Flow matching with Heun's steps. Upstream: diffusers scheduling_flow_match_heun_discrete.py, which knows
// only a fixed shift; a dynamic one is that of Euler steps.
#include <ATen/TensorOperators.h>

#include "sampling/flow_schedule.h"
#include "sampling/heun_steps.h"
#include "sampling/samplers.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

SamplerPlan flow_heun_plan(const SchedulerConfig& config, const Call& call) {
  config.refuse("stochastic_sampling", "Heun's steps draw no noise");
  config.refuse("invert_sigmas", "Heun's steps end at 0");
  refuse_timesteps(call, "Heun's steps of flow matching take sigmas or a number of steps");
  return doubled(flow_plan(config, call));
}

class FlowHeun : public PlannedSampler {
 public:
  FlowHeun(const Json& json, const Call& call)
      : PlannedSampler(flow_heun_plan(SchedulerConfig(json), call), call.begin, 2) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<FlowHeun>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor&) override {
    const float sigma = plan().sigmas[i];  // of x: in the second half that of the step's end
    const auto picture = x - sigma * prediction;
    return steps_.advance((x - picture) / sigma, i, x, plan().sigmas);  // rounded as the reference rounds it
  }

 private:
  HeunSteps steps_;
};

}  // namespace

std::unique_ptr<Sampler> make_flow_heun(const Json& config, const Call& call) {
  return std::make_unique<FlowHeun>(config, call);
}

}  // namespace atelier::sampling
