#include "sampling/spacing.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "sampling/beta_quantile.h"
#include "sampling/library_math.h"

namespace atelier::sampling {
namespace {

// last, last - stride, ... down to 1, rounded, less one. Strides that are no binary fraction may leave a step
// at -1 over, which the reference then takes; it is left out here.
std::vector<double> trailing(double last, double stride) {
  std::vector<double> out;
  const double delta = (last - stride) - last;
  for (int64_t i = 0;; ++i) {
    const double t = std::rint(last + static_cast<double>(i) * delta) - 1;
    if (t < 0) return out;
    out.push_back(t);
  }
}

}  // namespace

std::vector<double> linspace(double first, double last, int64_t n) {
  std::vector<double> v;
  const double step = n > 1 ? (last - first) / static_cast<double>(n - 1) : 0;
  for (int64_t i = 0; i < n; ++i) v.push_back(static_cast<double>(i) * step + first);
  if (n > 1) v.back() = last;
  return v;
}

double interpolate(std::span<const float> table, double at) {
  if (at <= 0) return table.front();
  const auto i = static_cast<size_t>(at);
  if (i + 1 >= table.size()) return table.back();
  const double low = table[i], slope = static_cast<double>(table[i + 1]) - low;
  return slope * (at - static_cast<double>(i)) + low;
}

std::vector<double> spaced_timesteps(const SchedulerConfig& c, int steps, const SpacingRule& rule) {
  const auto name = c.word("timestep_spacing", rule.otherwise, {"linspace", "leading", "trailing"});
  const int64_t trained = c.trained(), range = rule.range ? rule.range : trained;
  const int64_t laid = steps + rule.spare;
  if (name == "trailing")
    return trailing(static_cast<double>(range), static_cast<double>(trained) / static_cast<double>(steps));
  std::vector<double> rising;
  if (name == "linspace") {
    rising = linspace(0, static_cast<double>(range - 1), laid);
    for (double& t : rising) t = rule.whole ? std::rint(t) : static_cast<double>(static_cast<float>(t));
  } else {
    const int64_t stride = range / laid;
    if (stride == 0)
      throw Error(Kind::kUsage, str("num_inference_steps is ", steps, ", but leading timesteps fit at most ",
                                    range - rule.spare));
    const int64_t offset = c.integer("steps_offset", 0);
    if (offset < 0 || offset >= trained)
      refuse_option("steps_offset", str("must be from 0 to ", trained - 1, ", found ", offset));
    for (int64_t i = 0; i < laid; ++i) rising.push_back(static_cast<double>(i * stride + offset));
  }
  return {rising.rbegin(), rising.rend() - rule.spare};
}

SigmaCurve sigma_curve(const SchedulerConfig& c) {
  const bool karras = c.flag("use_karras_sigmas"), exponential = c.flag("use_exponential_sigmas"),
             beta = c.flag("use_beta_sigmas");
  if (karras + exponential + beta > 1)
    refuse_option("use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas", "exclude each other");
  return karras        ? SigmaCurve::kKarras
         : exponential ? SigmaCurve::kExponential
         : beta        ? SigmaCurve::kBeta
                       : SigmaCurve::kPlain;
}

std::vector<double> curved_sigmas(SigmaCurve curve, const SchedulerConfig& c, double largest, double smallest,
                                  int64_t n) {
  const double high = c.number("sigma_max", largest), low = c.number("sigma_min", smallest);
  if (!(low > 0 && high >= low)) refuse_option("sigma_min, sigma_max", str("are ", low, " and ", high));
  std::vector<double> out;
  if (curve == SigmaCurve::kExponential) {
    for (const double v : linspace(std::log(high), std::log(low), n)) out.push_back(std::exp(v));
    return out;
  }
  constexpr double kRho = 7;
  const double high_root = std::pow(high, 1 / kRho), low_root = std::pow(low, 1 / kRho);
  for (const double ramp : linspace(0, 1, n)) {
    out.push_back(curve == SigmaCurve::kKarras ? std::pow(high_root + ramp * (low_root - high_root), kRho)
                                               : low + beta_quantile(1 - ramp, 0.6, 0.6) * (high - low));
  }
  return out;
}

namespace {

// wanted: a logarithm, whose type is that of the arithmetic; positions are double, as integers make them.
template <class Real>
double position_of(Real wanted, std::span<const float> log_sigmas) {
  // The last one that is not larger.
  const auto above = std::upper_bound(log_sigmas.begin(), log_sigmas.end(), wanted,
                                      [](Real value, float entry) { return value < entry; });
  const auto last = static_cast<int64_t>(log_sigmas.size()) - 2;
  const auto low = static_cast<size_t>(std::clamp<int64_t>(above - log_sigmas.begin() - 1, 0, last));
  const Real w = (log_sigmas[low] - wanted) / static_cast<Real>(log_sigmas[low] - log_sigmas[low + 1]);
  const Real share = std::clamp<Real>(w, 0, 1);
  const auto index = static_cast<double>(low);
  return static_cast<double>(1 - share) * index + static_cast<double>(share) * (index + 1);
}

}  // namespace

double timestep_of(double sigma, std::span<const float> log_sigmas) {
  return position_of(std::log(std::max(sigma, 1e-10)), log_sigmas);
}

double timestep_of_given(float sigma, std::span<const float> log_sigmas) {
  return position_of(numpy_log(std::max(sigma, 1e-10f)), log_sigmas);
}

std::vector<float> logs_of(std::span<const float> sigmas) {
  std::vector<float> out;
  for (const float s : sigmas) out.push_back(numpy_log(s));
  return out;
}

void refuse_sigmas(const Call& call, const char* why) {
  if (!call.sigmas.empty()) throw Error(Kind::kUsage, str("sigmas were given, but ", why));
}

void refuse_timesteps(const Call& call, const char* why) {
  if (!call.timesteps.empty()) throw Error(Kind::kUsage, str("timesteps were given, but ", why));
}

std::vector<double> given_timesteps(const Call& call, int64_t trained) {
  for (size_t i = 0; i < call.timesteps.size(); ++i) {
    const double t = call.timesteps[i];
    if (t != std::floor(t) || t < 0 || t >= static_cast<double>(trained))
      throw Error(Kind::kUsage, str("timesteps must be integers from 0 to ", trained - 1, ", found ", t));
    if (i > 0 && t >= call.timesteps[i - 1])
      throw Error(Kind::kUsage, str("timesteps must fall, but ", t, " follows ", call.timesteps[i - 1]));
  }
  return call.timesteps;
}

void check_steps(const Call& call, int64_t most) {
  if (call.steps < 1)
    throw Error(Kind::kUsage, str("num_inference_steps must be at least 1, found ", call.steps));
  if (call.steps > most)
    throw Error(Kind::kUsage,
                str("num_inference_steps is ", call.steps, ", but this scheduler has at most ", most));
}

}  // namespace atelier::sampling
