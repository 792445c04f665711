#include "sampling/flow_euler.h"

#include <ATen/TensorOperators.h>

#include "sampling/flow_schedule.h"

namespace atelier::sampling {
namespace {

SamplerPlan euler_plan(const SchedulerConfig& config, const Call& call) {
  auto plan = flow_plan(config, call);
  if (!config.flag("stochastic_sampling")) return plan;
  for (size_t i = 0; i < plan.steps.size(); ++i) plan.steps[i].draws_noise = plan.sigmas[i + 1] != 0;
  return plan;
}

}  // namespace

FlowEuler::FlowEuler(const Json& json, const Call& call)
    : PlannedSampler(euler_plan(SchedulerConfig(json), call), call.begin),
      stochastic_(SchedulerConfig(json).flag("stochastic_sampling")) {}

at::Tensor FlowEuler::advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                              const at::Tensor& noise) {
  const float sigma = plan().sigmas[i], next = plan().sigmas[i + 1];
  if (!stochastic_) return x + (next - sigma) * prediction;
  const auto picture = (1 - next) * (x - sigma * prediction);
  return noise.defined() ? picture + next * noise : picture;
}

}  // namespace atelier::sampling
