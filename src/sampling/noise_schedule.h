// The noise that diffusion models were trained with, and what a denoiser predicts in it.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <string_view>
#include <vector>

#include "sampling/scheduler_config.h"

namespace atelier::sampling {

// What a class takes where the configuration says nothing, and which betas it knows besides the usual three.
struct BetaDefaults {
  double start = 0.0001, end = 0.02;
  const char* schedule = "linear";
  std::span<const std::string_view> more = {};
};

// What the class does with rescale_betas_zero_snr: the last cumulative product is 0, or as near to it as half
// precision goes, or the option is not read.
enum class TerminalSnr { kZero, kNearZero, kUnread };

// Products of 1 - beta, [num_train_timesteps], falling: Ho et al. (arXiv 2006.11239), equation 4. Float, as
// the reference computes them. Throws Error(kCheckpoint).
std::vector<float> alphas_cumprod(const SchedulerConfig& config, const BetaDefaults& defaults,
                                  TerminalSnr snr);
// sqrt((1 - a) / a) of each, rising.
std::vector<float> sigmas_of(std::span<const float> alphas_cumprod);

// x = alpha * picture + sigma * noise.
struct NoiseLevel {
  float alpha = 1, sigma = 0;
};

enum class PredictionType { kEpsilon, kSample, kV, kFlow };
// Throws Error(kCheckpoint) if the configuration's is not among those that the class has.
PredictionType prediction_type(const SchedulerConfig& config, std::initializer_list<PredictionType> known);

// The picture that a prediction at x stands for: Salimans and Ho (arXiv 2202.00512), appendix D. Flow: the
// prediction is noise - picture.
at::Tensor picture_of(PredictionType type, NoiseLevel level, const at::Tensor& x,
                      const at::Tensor& prediction);
// The noise that it stands for; not for flow.
at::Tensor noise_of(PredictionType type, NoiseLevel level, const at::Tensor& x, const at::Tensor& prediction);

}  // namespace atelier::sampling
