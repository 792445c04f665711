#include "sampling/sigma_schedule.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/linspace.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/library_math.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

struct Knots {
  std::vector<double> times, sigmas;  // sigmas may be one more than times, and lack the final one
};

// sigmas by hand end with the final one, which has no time.
Knots given_sigmas(const Call& call, std::span<const float> log_sigmas) {
  Knots k;
  if (call.sigmas.size() < 2)
    throw Error(Kind::kUsage,
                "sigmas of this scheduler are at least two: the last is where the last step ends");
  for (size_t i = 0; i < call.sigmas.size(); ++i) {
    const double s = call.sigmas[i];
    const bool last = i + 1 == call.sigmas.size();
    if (!(s > 0 || (last && s == 0)))
      throw Error(Kind::kUsage, str("sigmas must be above 0 (the last may be 0), found ", s));
    if (!last) k.times.push_back(timestep_of_given(static_cast<float>(s), log_sigmas));
    k.sigmas.push_back(s);
  }
  return k;
}

std::vector<double> evenly_in_log(std::span<const float> trained, int64_t n) {
  const auto sigmas =
      at::linspace(numpy_log(trained.back()), numpy_log(trained.front()), n, at::TensorOptions(at::kFloat))
          .exp();
  return {sigmas.const_data_ptr<float>(), sigmas.const_data_ptr<float>() + n};
}

Knots laid_out(const SchedulerConfig& c, const Call& call, const SigmaRule& rule,
               std::span<const float> trained) {
  Knots k;
  k.times = !call.timesteps.empty()
                ? given_timesteps(call, std::ssize(trained))
                : spaced_timesteps(c, call.steps, {.otherwise = "linspace", .whole = false});
  const bool logarithmic =
      rule.euler_extras && c.word("interpolation_type", "linear", {"linear", "log_linear"}) == "log_linear";
  if (logarithmic) {
    k.sigmas = evenly_in_log(trained, std::ssize(k.times) + 1);
  } else {
    for (const double t : k.times) k.sigmas.push_back(interpolate(trained, t));
  }
  const auto curve = rule.curves ? sigma_curve(c) : SigmaCurve::kPlain;
  if (curve == SigmaCurve::kPlain) return k;
  refuse_timesteps(call, "the configuration lays sigmas on a curve");
  k.sigmas = curved_sigmas(curve, c, k.sigmas.front(), k.sigmas.back(), std::ssize(k.times));
  const auto logs = logs_of(trained);
  for (size_t i = 0; i < k.times.size(); ++i) k.times[i] = timestep_of(k.sigmas[i], logs);
  return k;
}

double final_sigma(const SchedulerConfig& c, const SigmaRule& rule, std::span<const float> trained) {
  if (!rule.euler_extras) return 0;
  return c.word("final_sigmas_type", "zero", {"zero", "sigma_min"}) == "zero" ? 0.0 : trained.front();
}

}  // namespace

SamplerPlan sigma_plan(const SchedulerConfig& c, const Call& call, const SigmaRule& rule) {
  check_steps(call, 1'000'000);
  if (!rule.euler_extras) refuse_sigmas(call, "this scheduler takes timesteps or a number of steps");
  if (!rule.curves) refuse_timesteps(call, "this scheduler takes a number of steps");
  if (!call.sigmas.empty()) refuse_timesteps(call, "so were sigmas");
  const auto trained = sigmas_of(alphas_cumprod(c, rule.betas, rule.terminal_snr));
  const bool given = !call.sigmas.empty();
  auto knots = given ? given_sigmas(call, logs_of(trained)) : laid_out(c, call, rule, trained);
  if (!given) knots.sigmas.push_back(final_sigma(c, rule, trained));
  SamplerPlan plan;
  for (const double s : knots.sigmas) plan.sigmas.push_back(static_cast<float>(s));
  const bool continuous =
      rule.euler_extras && c.word("timestep_type", "discrete", {"discrete", "continuous"}) == "continuous" &&
      c.word("prediction_type", "epsilon", {"epsilon", "sample", "v_prediction"}) == "v_prediction";
  for (size_t i = 0; i < knots.times.size(); ++i) {
    const float s = plan.sigmas[i];
    plan.steps.push_back({.time = continuous ? 0.25f * lib_log(s) : static_cast<float>(knots.times[i]),
                          .input_divisor = lib_sqrt(s * s + 1)});
  }
  for (size_t i = 0; i <= plan.steps.size(); ++i) plan.levels.push_back({1, plan.sigmas[i]});
  const float most = *std::max_element(plan.sigmas.begin(), plan.sigmas.end());
  const auto spacing = c.word("timestep_spacing", "linspace", {"linspace", "leading", "trailing"});
  plan.init_noise_sigma = spacing == "leading" ? lib_sqrt(most * most + 1) : most;
  return plan;
}

at::Tensor picture_at(PredictionType type, float sigma, const at::Tensor& x, const at::Tensor& prediction) {
  if (type == PredictionType::kEpsilon) return x - sigma * prediction;
  if (type == PredictionType::kSample) return prediction;
  const float square = sigma * sigma + 1;
  return prediction * (-sigma / lib_sqrt(square)) + x / square;
}

at::Tensor derivative_of(PredictionType type, float sigma, const at::Tensor& x,
                         const at::Tensor& prediction) {
  return (x - picture_at(type, sigma, x, prediction)) / sigma;
}

}  // namespace atelier::sampling
