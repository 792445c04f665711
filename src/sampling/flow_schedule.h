// The sigmas of flow matching, where x = (1 - sigma) * picture + sigma * noise.
#pragma once
#include <vector>

#include "sampling/planned_sampler.h"
#include "sampling/scheduler_config.h"

namespace atelier::sampling {

// Moves sigmas in (0, 1] towards noise: by a fixed factor (SD3, arXiv 2403.03206, equation 23) or, with
// use_dynamic_shifting, by mu, which follows the number of tokens.
class FlowShift {
 public:
  // factor_key: shift or flow_shift. Throws Error(kCheckpoint), or Error(kUsage) without mu or tokens where
  // they are needed.
  FlowShift(const SchedulerConfig& config, const Call& call, const char* factor_key);
  // Real: float or double, in which every operation is rounded, as the reference's arrays are.
  template <class Real>
  Real operator()(Real sigma) const {
    return dynamic_ ? moved(sigma) : fixed(sigma);
  }
  bool is_dynamic() const { return dynamic_; }
  template <class Real>
  Real fixed(Real sigma) const {
    return static_cast<Real>(factor_) * sigma / (1 + static_cast<Real>(factor_ - 1) * sigma);
  }

 private:
  template <class Real>
  Real moved(Real sigma) const {
    const auto weight = static_cast<Real>(weight_);
    return weight / (weight + (1 / sigma - 1));
  }
  bool dynamic_;
  double factor_ = 1, weight_ = 1;
};

// The shift of so many tokens, or Call::mu. Throws Error(kUsage) without both.
double dynamic_mu(const SchedulerConfig& config, const Call& call);

// Stretches them so that the last is shift_terminal, if the configuration has one.
template <class Real>
void stretch_to_terminal(const SchedulerConfig& config, std::vector<Real>& sigmas);

// The plan of Euler steps, one for each step of inference; sigmas end with 0 (1 where they are inverted).
SamplerPlan flow_plan(const SchedulerConfig& config, const Call& call);

}  // namespace atelier::sampling
