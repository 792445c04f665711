// DPM-Solver and DPM-Solver++ with several steps, as ODE and as SDE: Lu et al. (arXiv 2206.00927 and
// 2211.01095). Upstream: diffusers scheduling_dpmsolver_multistep.py.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/flow_schedule.h"
#include "sampling/library_math.h"
#include "sampling/multistep.h"
#include "sampling/samplers.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

using enum PredictionType;

struct DpmOptions {
  bool predicts_picture;  // the ++ kinds integrate the picture, the others the noise
  bool stochastic;
  bool midpoint;  // of second order; heun otherwise
  int order;
  bool flow, lower_order_final, euler_at_final, zero_at_final;

  explicit DpmOptions(const SchedulerConfig& c)
      : order(solver_order(c, 3)),
        flow(c.flag("use_flow_sigmas")),
        lower_order_final(c.flag("lower_order_final", true)),
        euler_at_final(c.flag("euler_at_final")),
        zero_at_final(ends_at_zero(c)) {
    const auto algorithm = c.word("algorithm_type", "dpmsolver++",
                                  {"dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"});
    predicts_picture = algorithm.ends_with("++"), stochastic = algorithm.starts_with("sde-");
    // Names of other solvers' kinds mean the usual one.
    midpoint = c.word("solver_type", "midpoint", {"midpoint", "heun", "logrho", "bh1", "bh2"}) != "heun";
    if (!predicts_picture && zero_at_final)
      refuse_option("final_sigmas_type", str("must be sigma_min for algorithm_type ", algorithm));
    if (algorithm == "sde-dpmsolver" && order == 3)
      refuse_option("solver_order", "is 3, which algorithm_type sde-dpmsolver does not have");
    c.refuse("thresholding", "it looks at whole pictures, of which a rank may hold a part");
    if (c.has("variance_type") && c.word("variance_type", "",
                                         {"learned", "learned_range", "fixed_small", "fixed_small_log",
                                          "fixed_large", "fixed_large_log"})
                                      .starts_with("learned"))
      refuse_option("variance_type", "is learned, but no denoiser of this program predicts variances");
  }
};

// How many trained timesteps have a half log-SNR of at least lambda_min_clipped.
int64_t clipped_range(const SchedulerConfig& c, std::span<const float> alphas) {
  const auto least = c.limit("lambda_min_clipped");
  if (!least) return std::ssize(alphas);
  const auto kept = std::count_if(alphas.begin(), alphas.end(), [&](float a) {
    return half_log_snr({std::sqrt(a), std::sqrt(1 - a)}) >= static_cast<float>(*least);
  });
  if (kept == 0) refuse_option("lambda_min_clipped", str("is ", *least, ", which leaves no timestep"));
  return kept;
}

// Sigmas from 1 downwards; the first is not quite 1.
MultistepKnots dpm_flow_knots(const SchedulerConfig& c, const Call& call) {
  const bool moves = c.flag("use_dynamic_shifting") && (call.mu || call.tokens);
  const double factor = moves ? std::exp(dynamic_mu(c, call)) : c.number("flow_shift", 1);
  if (!(factor > 0)) refuse_option("flow_shift", str("must be above 0, found ", factor));
  const auto trained = static_cast<double>(c.trained());
  MultistepKnots k;
  auto alphas = linspace(1, 1 / trained, call.steps + 1);
  for (size_t i = alphas.size() - 1; i > 0; --i) {
    const double s = 1.0 - alphas[i];
    k.sigmas.push_back(factor * s / (1 + (factor - 1) * s));
    k.times.push_back(k.sigmas.back() * trained);
  }
  return k;
}

std::vector<double> even_lambdas(std::span<const float> logs, int64_t n) {
  std::vector<double> out;
  const double high = logs.back(), low = logs.front();
  for (const double ramp : linspace(0, 1, n)) out.push_back(std::exp(high + ramp * (low - high)));
  return out;
}

MultistepKnots dpm_knots(const SchedulerConfig& c, const Call& call, const DpmOptions& options) {
  check_steps(call, 1'000'000);
  refuse_sigmas(call, "DPM-Solver takes timesteps or a number of steps");
  const auto alphas = alphas_cumprod(c, {}, TerminalSnr::kNearZero);
  const auto trained = sigmas_of(alphas);
  const auto curve = sigma_curve(c);
  const bool lu = c.flag("use_lu_lambdas"), curved = lu || curve != SigmaCurve::kPlain;
  if (curved && options.flow)
    refuse_option("use_flow_sigmas", "excludes sigmas on a curve here: those lie above 1");
  if (curved || options.flow) refuse_timesteps(call, "the configuration lays sigmas out by itself");
  MultistepKnots k;
  if (options.flow) {
    k = dpm_flow_knots(c, call);
  } else if (curved) {
    const auto logs = logs_of(trained);
    const bool karras = curve == SigmaCurve::kKarras;
    k.sigmas = lu && !karras ? even_lambdas(logs, call.steps)
                             : curved_sigmas(curve, c, trained.back(), trained.front(), call.steps);
    const bool whole = (karras || lu) &&
                       c.word("beta_schedule", "linear", {"linear", "scaled_linear", "squaredcos_cap_v2"}) !=
                           "squaredcos_cap_v2";
    for (const double s : k.sigmas) {
      const double t = timestep_of(s, logs);
      k.times.push_back(whole ? std::rint(t) : t);
    }
  } else {
    k.times = call.timesteps.empty()
                  ? spaced_timesteps(c, call.steps,
                                     {.otherwise = "linspace", .spare = 1, .range = clipped_range(c, alphas)})
                  : given_timesteps(call, c.trained());
    for (const double t : k.times) k.sigmas.push_back(interpolate(trained, t));
  }
  k.last_sigma = options.zero_at_final ? 0 : trained.front();
  return k;
}

// What the next x is made of: x, the newest prediction D0, its first and second derivatives D1 and D2 by half
// the log-SNR, and new noise. Equations 3.6 and B.4 of DPM-Solver, 9 to 13 and 17 of DPM-Solver++.
struct DpmWeights {
  float x = 0, d0 = 0, d1 = 0, d2 = 0, noise = 0;
};

// From one level to another, h apart in half the log-SNR.
DpmWeights weights_of_picture(const DpmOptions& o, NoiseLevel from, NoiseLevel to, float h) {
  const float steep = o.stochastic ? 2 * h : h, grown = lib_exp(-steep) - 1;
  const float half = o.stochastic ? 0.5f : -0.5f;
  return {.x = to.sigma / from.sigma * (o.stochastic ? lib_exp(-h) : 1),
          .d0 = -to.alpha * grown,
          .d1 = to.alpha * (grown / steep + 1),
          .d2 = -to.alpha * ((grown + steep) / (steep * steep) + half),
          .noise = o.stochastic ? to.sigma * lib_sqrt(-(lib_exp(-2 * h) - 1)) : 0};
}

DpmWeights weights_of_noise(const DpmOptions& o, NoiseLevel from, NoiseLevel to, float h) {
  const float grown = lib_exp(h) - 1, twice = o.stochastic ? -2 * to.sigma : -to.sigma;
  return {.x = to.alpha / from.alpha,
          .d0 = twice * grown,
          .d1 = twice * (grown / h - 1),
          .d2 = twice * ((grown - h) / (h * h) - 0.5f),
          .noise = o.stochastic ? to.sigma * lib_sqrt(lib_exp(2 * h) - 1) : 0};
}

SamplerPlan dpm_plan(const SchedulerConfig& c, const Call& call, const DpmOptions& options) {
  auto plan = multistep_plan(dpm_knots(c, call, options), options.flow);
  for (size_t i = 0; i < plan.steps.size(); ++i)
    plan.steps[i].draws_noise = options.stochastic && plan.sigmas[i + 1] != 0;
  return plan;
}

class DpmSolver : public PlannedSampler {
 public:
  DpmSolver(const SchedulerConfig& c, const Call& call, const DpmOptions& options)
      : PlannedSampler(dpm_plan(c, call, options), call.begin),
        options_(options),
        type_(options.predicts_picture ? prediction_type(c, {kEpsilon, kSample, kV, kFlow})
                                       : prediction_type(c, {kEpsilon, kSample, kV})),
        history_(options.order) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<DpmSolver>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor& noise) override {
    NoiseLevel here = level(i);
    if (type_ == kFlow) here.sigma = plan().sigmas[i];
    const int order = order_at(i);
    history_.add(options_.predicts_picture ? picture_of(type_, here, x, prediction)
                                           : noise_of(type_, here, x, prediction));
    const float h = distance(i);
    auto w = options_.predicts_picture ? weights_of_picture(options_, level(i), level(i + 1), h)
                                       : weights_of_noise(options_, level(i), level(i + 1), h);
    if (order == 2 && options_.midpoint) w.d1 = 0.5f * w.d0;
    auto next = w.x * x + w.d0 * history_[0];
    if (order > 1) next = with_derivatives(next, i, order, w);
    return noise.defined() ? next + w.noise * noise : next;
  }

 private:
  NoiseLevel level(size_t i) const { return plan().levels[i]; }
  // Of the step that begins at i, in half the log-SNR.
  float distance(size_t i) const { return half_log_snr(level(i + 1)) - half_log_snr(level(i)); }

  int order_at(size_t i) const {
    const size_t left = plan().steps.size() - i;
    const bool eased = options_.lower_order_final && plan().steps.size() < 15;
    int order = std::min(options_.order, history_.size() + 1);
    if (left == 1 && (options_.euler_at_final || eased || options_.zero_at_final)) order = 1;
    if (left == 2 && eased) order = std::min(order, 2);
    return order;
  }

  // next with its parts of D1 and, for the third order, D2.
  at::Tensor with_derivatives(const at::Tensor& next, size_t i, int order, const DpmWeights& w) const {
    const float h = distance(i), r0 = distance(i - 1) / h;
    const auto near = 1 / r0 * (history_[0] - history_[1]);
    if (order == 2) return next + w.d1 * near;
    const float r1 = distance(i - 2) / h;
    const auto bend = near - 1 / r1 * (history_[1] - history_[2]);
    return next + w.d1 * (near + r0 / (r0 + r1) * bend) + w.d2 * (1 / (r0 + r1) * bend);
  }

  DpmOptions options_;
  PredictionType type_;
  History history_;
};

}  // namespace

std::unique_ptr<Sampler> make_dpm_solver(const Json& config, const Call& call) {
  const SchedulerConfig c(config);
  return std::make_unique<DpmSolver>(c, call, DpmOptions(c));
}

}  // namespace atelier::sampling
