// Heun's steps along sigma. Karras et al. (arXiv 2206.00364), algorithm 1 without new noise;
// upstream: diffusers scheduling_heun_discrete.py.
#include <ATen/TensorOperators.h>

#include "sampling/heun_steps.h"
#include "sampling/samplers.h"
#include "sampling/sigma_schedule.h"

namespace atelier::sampling {
namespace {

using enum PredictionType;

SamplerPlan heun_plan(const SchedulerConfig& c, const Call& call) {
  static constexpr std::string_view kMore[] = {"exp"};
  const BetaDefaults betas{.start = 0.00085, .end = 0.012, .more = kMore};
  return doubled(
      sigma_plan(c, call, {.betas = betas, .terminal_snr = TerminalSnr::kUnread, .euler_extras = false}));
}

class Heun : public PlannedSampler {
 public:
  Heun(const SchedulerConfig& c, const Call& call)
      : PlannedSampler(heun_plan(c, call), call.begin, 2),
        type_(prediction_type(c, {kEpsilon, kV, kSample})) {
    if (c.flag("clip_sample")) clip_ = c.number("clip_sample_range", 1);
  }
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<Heun>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor&) override {
    const float sigma = plan().sigmas[i];  // of x: in the second half that of the step's end
    if (!clip_) return steps_.advance(derivative_of(type_, sigma, x, prediction), i, x, plan().sigmas);
    const auto picture = picture_at(type_, sigma, x, prediction).clamp(-*clip_, *clip_);
    return steps_.advance((x - picture) / sigma, i, x, plan().sigmas);
  }

 private:
  PredictionType type_;
  std::optional<double> clip_;
  HeunSteps steps_;
};

}  // namespace

std::unique_ptr<Sampler> make_heun(const Json& config, const Call& call) {
  return std::make_unique<Heun>(SchedulerConfig(config), call);
}

}  // namespace atelier::sampling
