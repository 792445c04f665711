#include "sampling/planned_sampler.h"

#include <ATen/TensorOperators.h>

#include "base/check.h"
#include "base/error.h"

namespace atelier::sampling {

PlannedSampler::PlannedSampler(SamplerPlan plan, int begin, int order)
    : plan_(std::move(plan)), first_(static_cast<size_t>(begin) * static_cast<size_t>(order)) {
  ENSURE(plan_.levels.size() == plan_.steps.size() + 1 && plan_.sigmas.size() > plan_.steps.size());
  if (begin < 0 || first_ >= plan_.steps.size())
    throw Error(Kind::kUsage, str("of ", plan_.steps.size() / static_cast<size_t>(order), " steps, ", begin,
                                  " were to be left out: at least one must run"));
}

at::Tensor PlannedSampler::step(const at::Tensor& prediction, int i, const at::Tensor& x,
                                const at::Tensor& noise) {
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto widened = noise.defined() ? noise.to(wide) : noise;
  return advance(prediction.to(wide), first_ + static_cast<size_t>(i), x.to(wide), widened)
      .to(x.scalar_type());
}

at::Tensor PlannedSampler::add_noise(const at::Tensor& picture, const at::Tensor& noise, int i) const {
  const NoiseLevel level = plan_.levels.at(first_ + static_cast<size_t>(i));
  return level.alpha * picture + level.sigma * noise;
}

void PlannedSampler::hand_over_below(double time, double cfg) {
  for (Step& step : plan_.steps) {
    if (step.time < time) step.expert = 1, step.cfg = cfg;
  }
}

}  // namespace atelier::sampling
