// UniPC: a predictor and a corrector of any order. Zhao et al. (arXiv 2302.04867). Upstream: diffusers
// scheduling_unipc_multistep.py.
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

constexpr int kMostOrder = 6;

struct UnipcOptions {
  int order;
  bool predicts_picture, bh2, lower_order_final, zero_at_final, flow;
  std::vector<double> uncorrected;  // steps whose result stays as it was predicted

  explicit UnipcOptions(const SchedulerConfig& c)
      : order(solver_order(c, kMostOrder)),
        predicts_picture(c.flag("predict_x0", true)),
        // Names of other solvers' kinds mean the usual one.
        bh2(c.word("solver_type", "bh2", {"bh1", "bh2", "midpoint", "heun", "logrho"}) != "bh1"),
        lower_order_final(c.flag("lower_order_final", true)),
        zero_at_final(ends_at_zero(c)),
        flow(c.flag("use_flow_sigmas")),
        uncorrected(c.numbers("disable_corrector")) {
    c.refuse("thresholding", "it looks at whole pictures, of which a rank may hold a part");
    if (c.has("solver_p")) refuse_option("solver_p", "is not supported: the predictor is UniPC's own");
    if (c.has("shift_terminal") && !flow) refuse_option("shift_terminal", "needs use_flow_sigmas");
    if (zero_at_final && order > 1 && !lower_order_final)
      refuse_option("lower_order_final",
                    "must be true where the last sigma is 0: only a first order step reaches it");
    if (zero_at_final && !predicts_picture)
      refuse_option("predict_x0", "must be true where the last sigma is 0, or final_sigmas_type sigma_min");
  }
};

MultistepKnots unipc_flow_knots(const SchedulerConfig& c, const Call& call) {
  const FlowShift shift(c, call, "flow_shift");
  const auto trained = static_cast<double>(c.trained());
  MultistepKnots k;
  k.sigmas = call.sigmas;
  if (k.sigmas.empty()) {
    k.sigmas = linspace(1, 1 / trained, call.steps + 1);
    k.sigmas.pop_back();
  }
  for (double& s : k.sigmas) {
    if (!(s > 0 && s <= 1))
      throw Error(Kind::kUsage, str("sigmas of flow matching lie above 0 and up to 1, found ", s));
    s = shift(s);
  }
  stretch_to_terminal(c, k.sigmas);
  constexpr double kClear = 1e-6;  // the first step has some of the picture in it
  if (std::abs(k.sigmas.front() - 1) < kClear) k.sigmas.front() -= kClear;
  for (const double s : k.sigmas) k.times.push_back(s * trained);
  return k;
}

MultistepKnots curved_knots(const SchedulerConfig& c, const Call& call, SigmaCurve curve,
                            std::span<const float> trained) {
  const bool flow = c.flag("use_flow_sigmas"), karras = curve == SigmaCurve::kKarras;
  refuse_sigmas(call, "the configuration lays them on a curve");
  if (flow && !karras) refuse_option("use_flow_sigmas", "excludes this curve of sigmas: those lie above 1");
  MultistepKnots k;
  k.sigmas = curved_sigmas(curve, c, trained.back(), trained.front(), call.steps);
  const auto logs = logs_of(trained);
  for (double& s : k.sigmas) {
    if (flow) s = s / (s + 1);
    const double t = flow ? s * static_cast<double>(c.trained()) : timestep_of(s, logs);
    k.times.push_back(karras && !flow ? std::rint(t) : t);
  }
  return k;
}

MultistepKnots unipc_knots(const SchedulerConfig& c, const Call& call, const UnipcOptions& options) {
  check_steps(call, 1'000'000);
  refuse_timesteps(call, "UniPC takes a number of steps, or sigmas for flow matching");
  const auto trained = sigmas_of(alphas_cumprod(c, {}, TerminalSnr::kNearZero));
  const auto curve = sigma_curve(c);
  MultistepKnots k;
  if (curve != SigmaCurve::kPlain) {
    k = curved_knots(c, call, curve, trained);
  } else if (options.flow) {
    k = unipc_flow_knots(c, call);
  } else {
    refuse_sigmas(call, "UniPC takes them only with use_flow_sigmas");
    k.times = spaced_timesteps(c, call.steps, {.otherwise = "linspace", .spare = 1});
    for (const double t : k.times) k.sigmas.push_back(interpolate(trained, t));
  }
  const bool plain = curve == SigmaCurve::kPlain && !options.flow;
  k.last_sigma = options.zero_at_final ? 0.0 : plain ? trained.front() : k.sigmas.back();
  return k;
}

// The solution of a small system, by elimination with pivots. rows: n of n + 1 numbers, the right side last.
std::vector<double> solve(std::vector<std::vector<double>> rows) {
  const size_t n = rows.size();
  for (size_t k = 0; k < n; ++k) {
    const auto pivot =
        std::max_element(rows.begin() + static_cast<std::ptrdiff_t>(k), rows.end(),
                         [&](const auto& a, const auto& b) { return std::abs(a[k]) < std::abs(b[k]); });
    std::swap(rows[k], *pivot);
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = rows[i][k] / rows[k][k];
      for (size_t j = k; j <= n; ++j) rows[i][j] -= factor * rows[k][j];
    }
  }
  std::vector<double> x;
  for (size_t k = 0; k < n; ++k) x.push_back(rows[k][n] / rows[k][k]);
  return x;
}

// Equations 5 and 8: what a step to level `to` takes from x and from the newest prediction m0 at level
// `from`, and the scale and right sides of what it takes from differences of predictions.
struct UnipcStep {
  float x, m0, scale;
  std::vector<float> right;  // b of equation 8, one for each order

  UnipcStep(const UnipcOptions& o, int order, NoiseLevel from, NoiseLevel to) {
    const float h = half_log_snr(to) - half_log_snr(from), signed_h = o.predicts_picture ? -h : h;
    const float phi = lib_expm1(signed_h), size = o.bh2 ? phi : signed_h;
    const float width = o.predicts_picture ? to.alpha : to.sigma;
    x = o.predicts_picture ? to.sigma / from.sigma : to.alpha / from.alpha;
    m0 = -width * phi, scale = -width * size;
    float next = phi / signed_h - 1, factorial = 1;
    for (int i = 1; i <= order; ++i) {
      right.push_back(next * factorial / size);
      factorial *= static_cast<float>(i + 1);
      next = next / signed_h - 1 / factorial;
    }
  }
};

class Unipc : public PlannedSampler {
 public:
  Unipc(const SchedulerConfig& c, const Call& call, const UnipcOptions& options)
      : PlannedSampler(multistep_plan(unipc_knots(c, call, options), options.flow), call.begin),
        options_(options),
        type_(options.predicts_picture ? prediction_type(c, {kEpsilon, kSample, kV, kFlow})
                                       : prediction_type(c, {kEpsilon, kSample, kV})),
        history_(options.order) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<Unipc>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor&) override {
    NoiseLevel here = plan().levels[i];
    if (type_ == kFlow) here.sigma = plan().sigmas[i];
    const auto found = options_.predicts_picture ? picture_of(type_, here, x, prediction)
                                                 : noise_of(type_, here, x, prediction);
    const bool corrects =
        before_.defined() &&
        !std::count(options_.uncorrected.begin(), options_.uncorrected.end(), static_cast<double>(i) - 1);
    before_ = corrects ? moved(i, order_, before_, found) : x.clone();  // the caller's memory may change
    history_.add(found);
    order_ = std::min(options_.order, history_.size());
    if (options_.lower_order_final) order_ = std::min(order_, static_cast<int>(plan().steps.size() - i));
    return moved(i + 1, order_, before_, {});
  }

 private:
  float lambda(size_t i) const { return half_log_snr(plan().levels[i]); }

  // From x at step `to` - 1; with the prediction at `to` where it is known and corrects.
  at::Tensor moved(size_t to, int order, const at::Tensor& x, const at::Tensor& known) const {
    const UnipcStep step(options_, order, plan().levels[to - 1], plan().levels[to]);
    const auto m0 = history_[0];
    const auto straight = step.x * x + step.m0 * m0;
    const auto ratios = ratios_of(to, order);
    const auto rho = shares(ratios, step.right, known.defined());
    at::Tensor bend;
    for (size_t k = 0; k < rho.size(); ++k) {
      const bool newest = k + 1 == ratios.size();
      const auto difference = newest ? known - m0 : (history_[k + 1] - m0) / ratios[k];
      const auto share = static_cast<float>(rho[k]) * difference;
      bend = bend.defined() ? bend + share : share;
    }
    return bend.defined() ? straight + step.scale * bend : straight;
  }

  // Distances of earlier steps from step `to` - 1, in units of the step's own, and 1 for where it leads.
  std::vector<float> ratios_of(size_t to, int order) const {
    std::vector<float> r;
    const float from = lambda(to - 1), h = lambda(to) - from;
    for (int k = 1; k < order; ++k) r.push_back((lambda(to - 1 - static_cast<size_t>(k)) - from) / h);
    r.push_back(1);
    return r;
  }

  // Of each difference: all of them when correcting, all but the newest when predicting. Half where there
  // is one only.
  static std::vector<double> shares(std::span<const float> ratios, std::span<const float> right,
                                    bool corrects) {
    const size_t n = corrects ? ratios.size() : ratios.size() - 1;
    if (n < 2) return std::vector<double>(n, 0.5);
    std::vector<std::vector<double>> rows(n);
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < n; ++k) rows[i].push_back(std::pow(ratios[k], static_cast<float>(i)));
      rows[i].push_back(right[i]);
    }
    return solve(std::move(rows));
  }

  UnipcOptions options_;
  PredictionType type_;
  History history_;    // predictions of the steps before
  at::Tensor before_;  // x of the last step, corrected
  int order_ = 1;      // in which the last step was made
};

}  // namespace

std::unique_ptr<Sampler> make_unipc(const Json& config, const Call& call) {
  const SchedulerConfig c(config);
  return std::make_unique<Unipc>(c, call, UnipcOptions(c));
}

}  // namespace atelier::sampling
