// Plans of samplers whose latents are not scaled: x = picture + sigma * noise, as in Karras et
// al. (arXiv 2206.00364).
#pragma once
#include "sampling/planned_sampler.h"
#include "sampling/scheduler_config.h"

namespace atelier::sampling {

// What a class of the reference reads of its configuration, besides the spacing.
struct SigmaRule {
  BetaDefaults betas;
  TerminalSnr terminal_snr = TerminalSnr::kNearZero;
  bool curves = true;        // use_karras_sigmas and its like, timesteps and sigmas by hand
  bool euler_extras = true;  // final_sigmas_type, interpolation_type, timestep_type, sigmas by hand
};

SamplerPlan sigma_plan(const SchedulerConfig& config, const Call& call, const SigmaRule& rule);

// (x - picture) / sigma, where x has this sigma: by way of the picture also for predicted noise, so that it
// is rounded as the reference rounds it.
at::Tensor derivative_of(PredictionType type, float sigma, const at::Tensor& x, const at::Tensor& prediction);
at::Tensor picture_at(PredictionType type, float sigma, const at::Tensor& x, const at::Tensor& prediction);

}  // namespace atelier::sampling
