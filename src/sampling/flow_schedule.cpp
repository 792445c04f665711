#include "sampling/flow_schedule.h"

#include <cmath>

#include "base/error.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

// Linear in the token count through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift),
// without a clamp.
double mu_of(const SchedulerConfig& c, int64_t tokens) {
  const double base = c.number("base_image_seq_len", 256), most = c.number("max_image_seq_len", 4096);
  const double low = c.number("base_shift", 0.5), high = c.number("max_shift", 1.15);
  if (base == most)
    refuse_option("base_image_seq_len and max_image_seq_len",
                  str("are both ", base, ": dynamic shifting needs two token counts"));
  const double slope = (high - low) / (most - base);
  return static_cast<double>(tokens) * slope + (low - slope * base);
}

// What is shifted: given by hand, by the pipeline, or from the largest to the smallest trained sigma. The
// smallest is shifted already where the factor is fixed, and is shifted again, as the reference does.
std::vector<double> unshifted(const SchedulerConfig& c, const Call& call, const FlowShift& shift) {
  const auto trained = static_cast<double>(c.trained());
  const auto narrow = [](double v) { return static_cast<double>(static_cast<float>(v)); };
  std::vector<double> out;
  if (!call.sigmas.empty()) {
    for (const double s : call.sigmas) out.push_back(narrow(s));
  } else if (!call.timesteps.empty()) {
    for (const double t : call.timesteps) out.push_back(narrow(narrow(t) / trained));
  } else if (call.linear_sigmas) {
    for (const double s : linspace(1.0, 1.0 / call.steps, call.steps)) out.push_back(narrow(s));
  } else {
    const double ends[] = {1.0, narrow(1 / trained)};
    const auto end = [&](double s) {
      return shift.is_dynamic() ? s : static_cast<double>(shift.fixed(static_cast<float>(s)));
    };
    for (const double t : linspace(end(ends[0]) * trained, end(ends[1]) * trained, call.steps))
      out.push_back(t / trained);
  }
  const auto are_in = [](std::span<const double> given, double most, const char* what) {
    for (const double v : given) {
      if (!(v > 0 && v <= most))
        throw Error(Kind::kUsage, str(what, " of flow matching lie above 0 and up to ", most, ", found ", v));
    }
  };
  if (call.sigmas.empty()) are_in(call.timesteps, trained, "timesteps");
  are_in(out, 1, "sigmas");
  return out;
}

template <class Real>
std::vector<double> shifted(const SchedulerConfig& c, const FlowShift& shift, std::vector<Real> sigmas) {
  for (Real& s : sigmas) s = shift(s);
  stretch_to_terminal(c, sigmas);
  return {sigmas.begin(), sigmas.end()};
}

// Arrays that are given are float in the reference, its own are double.
std::vector<double> shifted_sigmas(const SchedulerConfig& c, const Call& call) {
  const FlowShift shift(c, call, "shift");
  const bool is_given = !call.sigmas.empty() || !call.timesteps.empty() || call.linear_sigmas;
  auto sigmas = unshifted(c, call, shift);
  sigmas = is_given ? shifted(c, shift, std::vector<float>(sigmas.begin(), sigmas.end()))
                    : shifted(c, shift, std::move(sigmas));
  const auto curve = sigma_curve(c);
  if (curve == SigmaCurve::kPlain) return sigmas;
  return curved_sigmas(curve, c, sigmas.front(), sigmas.back(), std::ssize(sigmas));
}

}  // namespace

FlowShift::FlowShift(const SchedulerConfig& c, const Call& call, const char* factor_key)
    : dynamic_(c.flag("use_dynamic_shifting")), factor_(c.number(factor_key, 1)) {
  if (!(factor_ > 0)) refuse_option(factor_key, str("must be above 0, found ", factor_));
  const auto form = c.word("time_shift_type", "exponential", {"exponential", "linear"});
  if (!dynamic_) return;
  const double mu = dynamic_mu(c, call);
  weight_ = form == "linear" ? mu : std::exp(mu);
  if (!(weight_ > 0))
    refuse_option("base_shift, max_shift", str("give a shift of ", weight_, "; it must be above 0"));
}

double dynamic_mu(const SchedulerConfig& c, const Call& call) {
  if (!call.mu && !call.tokens)
    throw Error(Kind::kUsage, "this scheduler shifts by the token count, which was not given");
  return call.mu ? *call.mu : mu_of(c, *call.tokens);
}

template <class Real>
void stretch_to_terminal(const SchedulerConfig& c, std::vector<Real>& sigmas) {
  const double terminal = c.number("shift_terminal", 0);
  if (terminal == 0) return;
  const Real scale = (1 - sigmas.back()) / static_cast<Real>(1 - terminal);
  if (!(terminal > 0 && terminal < 1 && scale > 0))
    refuse_option("shift_terminal",
                  str("is ", terminal, ": the last sigma, ", sigmas.back(), ", cannot become it"));
  for (Real& s : sigmas) s = 1 - (1 - s) / scale;
}

template void stretch_to_terminal(const SchedulerConfig&, std::vector<float>&);
template void stretch_to_terminal(const SchedulerConfig&, std::vector<double>&);

SamplerPlan flow_plan(const SchedulerConfig& c, const Call& call) {
  check_steps(call, 1'000'000);
  if (!call.sigmas.empty() && !call.timesteps.empty() && call.sigmas.size() != call.timesteps.size())
    throw Error(Kind::kUsage, str(call.sigmas.size(), " sigmas and ", call.timesteps.size(),
                                  " timesteps were given: there must be as many"));
  const bool inverted = c.flag("invert_sigmas");
  const auto trained = static_cast<float>(c.trained());
  SamplerPlan plan;
  for (const double wide : shifted_sigmas(c, call)) {
    const auto s = static_cast<float>(wide);
    plan.sigmas.push_back(inverted ? 1 - s : s);
    plan.steps.push_back({.time = plan.sigmas.back() * trained});
  }
  for (size_t i = 0; i < call.timesteps.size() && !inverted; ++i)
    plan.steps[i].time = static_cast<float>(call.timesteps[i]);
  plan.sigmas.push_back(inverted ? 1 : 0);
  for (const float s : plan.sigmas) plan.levels.push_back({1 - s, s});
  return plan;
}

}  // namespace atelier::sampling
