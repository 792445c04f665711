// Plans of samplers on whole trained timesteps: x = sqrt(a) * picture + sqrt(1 - a) * noise, where a is the
// cumulative product of 1 - beta at the timestep.
#pragma once
#include <optional>
#include <vector>

#include "sampling/planned_sampler.h"
#include "sampling/scheduler_config.h"

namespace atelier::sampling {

// How noisy x is as the product, and where it goes to.
struct AlphaStep {
  float from = 1, to = 1;
};

struct AlphaPlan {
  SamplerPlan plan;
  std::vector<AlphaStep> alphas;  // of each step
};

struct TrainedAlphas {
  std::vector<float> products;  // by timestep
  float last = 1;               // beyond the first timestep
};

// last: 1, or with set_alpha_to_one false the first timestep's.
TrainedAlphas trained_alphas(const SchedulerConfig& config, const BetaDefaults& betas);
// next: the timestep after each of `timesteps`; negative: the last product.
AlphaPlan alpha_plan(const TrainedAlphas& alphas, std::span<const double> timesteps,
                     std::span<const double> next);

// The clean picture that a prediction stands for, within the configuration's clip_sample_range
// where it clips.
class ClippedPicture {
 public:
  // clips: what the class does where clip_sample is not said. Throws Error(kCheckpoint) for thresholding,
  // which looks at whole pictures, and for epsilon where a step begins without any signal.
  ClippedPicture(const SchedulerConfig& config, bool clips, const AlphaPlan& plan);
  at::Tensor operator()(float alpha, const at::Tensor& x, const at::Tensor& prediction) const;
  PredictionType type() const { return type_; }

 private:
  PredictionType type_;
  std::optional<double> range_;
};

// sqrt(a), sqrt(1 - a).
NoiseLevel level_at(float alpha);

}  // namespace atelier::sampling
