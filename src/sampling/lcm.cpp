// Latent consistency models: each step goes to the clean picture and adds new noise. Luo et al. (arXiv
// 2310.04378); upstream: diffusers scheduling_lcm.py.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "base/error.h"
#include "sampling/alpha_schedule.h"
#include "sampling/samplers.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

// Evenly among the timesteps of the distilled solver, which end each of original_inference_steps equal parts.
std::vector<double> lcm_timesteps(const SchedulerConfig& c, const Call& call) {
  const int64_t original = c.integer("original_inference_steps", 50), trained = c.trained();
  if (original < 1 || original > trained)
    refuse_option("original_inference_steps", str("must be from 1 to ", trained, ", found ", original));
  if (!call.timesteps.empty()) return given_timesteps(call, trained);
  check_steps(call, original);
  std::vector<double> out;
  const double stride = static_cast<double>(original) / call.steps;
  for (int i = 0; i < call.steps; ++i) {
    const auto index = original - static_cast<int64_t>(i * stride);
    const int64_t time = index * (trained / original) - 1;
    out.push_back(static_cast<double>(time));
  }
  return out;
}

AlphaPlan lcm_plan(const SchedulerConfig& c, const Call& call) {
  refuse_sigmas(call, "LCM takes timesteps or a number of steps");
  const auto times = lcm_timesteps(c, call);
  std::vector<double> next(times.begin() + 1, times.end());
  next.push_back(times.back());
  auto out = alpha_plan(trained_alphas(c, {.start = 0.00085, .end = 0.012, .schedule = "scaled_linear"}),
                        times, next);
  for (size_t i = 0; i + 1 < times.size(); ++i) out.plan.steps[i].draws_noise = true;
  return out;
}

class Lcm : public PlannedSampler {
 public:
  Lcm(const SchedulerConfig& c, const Call& call, const AlphaPlan& plan)
      : PlannedSampler(plan.plan, call.begin),
        alphas_(plan.alphas),
        picture_(c, false, plan),
        scaling_(c.number("timestep_scaling", 10)) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<Lcm>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor& noise) override {
    constexpr double kData = 0.5;  // the deviation of pictures
    const double t = static_cast<double>(plan().steps[i].time) * scaling_, square = t * t + kData * kData;
    const auto clean =
        t / std::sqrt(square) * picture_(alphas_[i].from, x, prediction) + kData * kData / square * x;
    const NoiseLevel next = level_at(alphas_[i].to);
    return noise.defined() ? next.alpha * clean + next.sigma * noise : clean;
  }

 private:
  std::vector<AlphaStep> alphas_;
  ClippedPicture picture_;
  double scaling_;
};

}  // namespace

std::unique_ptr<Sampler> make_lcm(const Json& config, const Call& call) {
  const SchedulerConfig c(config);
  return std::make_unique<Lcm>(c, call, lcm_plan(c, call));
}

}  // namespace atelier::sampling
