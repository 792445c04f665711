// What DPM-Solver and UniPC share: plans whose timesteps are integers and whose latents are scaled, and half
// the logarithm of the signal-to-noise ratio, which they integrate over.
#pragma once
#include <vector>

#include "sampling/planned_sampler.h"
#include "sampling/scheduler_config.h"

namespace atelier::sampling {

// Where steps are, before they become a plan.
struct MultistepKnots {
  std::vector<double> times, sigmas;
  double last_sigma = 0;
};

// x is alpha * picture + sigma * noise with sigma / alpha = s, or with flow 1 - s and s.
SamplerPlan multistep_plan(const MultistepKnots& knots, bool is_flow);
// log(alpha / sigma); infinite where there is no noise.
float half_log_snr(NoiseLevel level);

// A solver's order from 1 to most.
int solver_order(const SchedulerConfig& config, int most);
// Whether final_sigmas_type is zero (the default) and not sigma_min.
bool ends_at_zero(const SchedulerConfig& config);

// The last few predictions, the newest first.
class History {
 public:
  explicit History(int most) : most_(static_cast<size_t>(most)) {}
  void add(const at::Tensor& value);
  const at::Tensor& operator[](size_t i) const { return values_.at(i); }
  int size() const { return static_cast<int>(values_.size()); }

 private:
  size_t most_;
  std::vector<at::Tensor> values_;
};

}  // namespace atelier::sampling
