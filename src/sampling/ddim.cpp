// Denoising diffusion implicit models: Song et al. (arXiv 2010.02502), equations 12 and 16.
// Upstream: diffusers scheduling_ddim.py.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "base/error.h"
#include "sampling/alpha_schedule.h"
#include "sampling/library_math.h"
#include "sampling/samplers.h"
#include "sampling/spacing.h"

namespace atelier::sampling {
namespace {

// Steps are of one length, which need not be the distance to the next timestep.
AlphaPlan ddim_plan(const SchedulerConfig& c, const Call& call) {
  refuse_sigmas(call, "DDIM takes a number of steps");
  refuse_timesteps(call, "DDIM takes a number of steps");
  check_steps(call, c.trained());
  if (!(call.eta >= 0 && call.eta <= 1))
    throw Error(Kind::kUsage, str("eta must be from 0 to 1, found ", call.eta));
  const auto times = spaced_timesteps(c, call.steps, {});
  std::vector<double> next;
  const int64_t stride = c.trained() / call.steps;
  for (const double t : times) next.push_back(t - static_cast<double>(stride));
  auto out = alpha_plan(trained_alphas(c, {}), times, next);
  for (size_t i = 0; i < times.size(); ++i)
    out.plan.steps[i].draws_noise = call.eta > 0 && out.alphas[i].to != 1;
  return out;
}

class Ddim : public PlannedSampler {
 public:
  Ddim(const SchedulerConfig& c, const Call& call, const AlphaPlan& plan)
      : PlannedSampler(plan.plan, call.begin),
        alphas_(plan.alphas),
        picture_(c, true, plan),
        eta_(static_cast<float>(call.eta)) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<Ddim>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor& noise) override {
    const auto [from, to] = alphas_[i];
    const float variance = (1 - to) / (1 - from) * (1 - from / to);
    const float fresh = eta_ * lib_sqrt(variance);
    const auto kept = noise_of(picture_.type(), level_at(from), x, prediction);
    const auto moved = lib_sqrt(to) * picture_(from, x, prediction) + lib_sqrt(1 - to - fresh * fresh) * kept;
    return noise.defined() ? moved + fresh * noise : moved;
  }

 private:
  std::vector<AlphaStep> alphas_;
  ClippedPicture picture_;
  float eta_;
};

}  // namespace

std::unique_ptr<Sampler> make_ddim(const Json& config, const Call& call) {
  const SchedulerConfig c(config);
  return std::make_unique<Ddim>(c, call, ddim_plan(c, call));
}

}  // namespace atelier::sampling
