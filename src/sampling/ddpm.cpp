// Denoising diffusion probabilistic models: Ho et al. (arXiv 2006.11239), equations 6 and 7.
// Upstream: diffusers scheduling_ddpm.py.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/alpha_schedule.h"
#include "sampling/library_math.h"
#include "sampling/samplers.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

// Each step goes to the next timestep; all but one at timestep 0 draw noise.
AlphaPlan ddpm_plan(const SchedulerConfig& c, const Call& call) {
  refuse_sigmas(call, "DDPM takes timesteps or a number of steps");
  check_steps(call, c.trained());
  const auto times =
      call.timesteps.empty() ? spaced_timesteps(c, call.steps, {}) : given_timesteps(call, c.trained());
  std::vector<double> next(times.begin() + 1, times.end());
  next.push_back(-1);
  static constexpr std::string_view kMore[] = {"laplace", "sigmoid"};
  const TrainedAlphas alphas{alphas_cumprod(c, {.more = kMore}, TerminalSnr::kZero)};
  auto out = alpha_plan(alphas, times, next);
  for (auto& step : out.plan.steps) step.draws_noise = step.time > 0;
  return out;
}

// Whether the variance is that of the forward step, the larger of its two bounds.
bool is_large(const SchedulerConfig& c) {
  const auto name = c.word(
      "variance_type", "fixed_small",
      {"fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"});
  if (name.starts_with("learned"))
    refuse_option("variance_type", str("is ", name, ", but no denoiser of this program predicts variances"));
  if (name == "fixed_large_log")
    refuse_option("variance_type", "is fixed_large_log, whose deviations are no numbers: take fixed_large");
  return name == "fixed_large";  // fixed_small_log is fixed_small by way of a logarithm
}

class Ddpm : public PlannedSampler {
 public:
  Ddpm(const SchedulerConfig& c, const Call& call, const AlphaPlan& plan)
      : PlannedSampler(plan.plan, call.begin),
        alphas_(plan.alphas),
        picture_(c, true, plan),
        is_large_(is_large(c)) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<Ddpm>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor& noise) override {
    const auto [from, to] = alphas_[i];
    const float ratio = from / to, beta = 1 - ratio;
    const float of_picture = lib_sqrt(to) * beta / (1 - from), of_x = lib_sqrt(ratio) * (1 - to) / (1 - from);
    const auto mean = of_picture * picture_(from, x, prediction) + of_x * x;
    const float variance = is_large_ ? beta : std::max((1 - to) / (1 - from) * beta, 1e-20f);
    return noise.defined() ? mean + lib_sqrt(variance) * noise : mean;
  }

 private:
  std::vector<AlphaStep> alphas_;
  ClippedPicture picture_;
  bool is_large_;
};

}  // namespace

std::unique_ptr<Sampler> make_ddpm(const Json& config, const Call& call) {
  const SchedulerConfig c(config);
  return std::make_unique<Ddpm>(c, call, ddpm_plan(c, call));
}

}  // namespace atelier::sampling
