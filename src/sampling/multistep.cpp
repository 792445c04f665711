#include "sampling/multistep.h"

#include <cmath>

#include "base/error.h"
#include "sampling/library_math.h"
#include "sampling/spacing.h"

namespace atelier::sampling {

SamplerPlan multistep_plan(const MultistepKnots& knots, bool is_flow) {
  SamplerPlan plan;
  for (size_t i = 0; i <= knots.sigmas.size(); ++i) {
    const auto s = static_cast<float>(i < knots.sigmas.size() ? knots.sigmas[i] : knots.last_sigma);
    const float alpha = is_flow ? 1 - s : 1 / lib_sqrt(s * s + 1);
    plan.sigmas.push_back(s);
    plan.levels.push_back({alpha, is_flow ? s : s * alpha});
  }
  // The denoiser is told integers: fractions are cut off.
  for (const double t : knots.times) plan.steps.push_back({.time = static_cast<float>(std::trunc(t))});
  return plan;
}

float half_log_snr(NoiseLevel level) {
  return lib_log(level.alpha) - lib_log(level.sigma);
}

int solver_order(const SchedulerConfig& c, int most) {
  const int64_t order = c.integer("solver_order", 2);
  if (order < 1 || order > most)
    refuse_option("solver_order", str("must be from 1 to ", most, ", found ", order));
  return static_cast<int>(order);
}

bool ends_at_zero(const SchedulerConfig& c) {
  return c.word("final_sigmas_type", "zero", {"zero", "sigma_min"}) == "zero";
}

void History::add(const at::Tensor& value) {
  values_.insert(values_.begin(), value);
  if (values_.size() > most_) values_.pop_back();
}

}  // namespace atelier::sampling
