// One evaluation of a denoiser for a caller that owns the sampling loop: latents, a time and conditioning in,
// predictions out, as the published network gives them.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "models/family.h"
#include "models/network_inputs.h"
#include "pipeline/denoise.h"
#include "sampling/sampler.h"

namespace atelier::pipeline {

// The samples may differ in everything but sizes.
struct DenoiserCall {
  at::Tensor latents;    // [B, C, H, W] or [B, C, frames, H, W], float, scaled as the network takes them
  at::Tensor timesteps;  // [B], float, in the network's own unit
  models::NamedTensors inputs;  // [B, ...]: what else the network is called with, see models::NetworkCall
  std::vector<std::string> adapters;  // as Request::lora
  int expert = 0;                     // which of the denoisers
};

// Samples of a call, neighbours, that share their time and every input of one number: one pass evaluates
// them.
struct SampleGroup {
  Range samples;
  float time = 0;  // what a sampler would tell the denoiser
  nn::Conditioning conditioning;
  models::GivenLatents given;
};

// The call as the family sees it, checked whole: every rank of a replica comes to the same verdict.
struct CheckedCall {
  models::Grid grid;
  at::Tensor noisy;                 // [B, C, ...], the denoiser's own channels
  std::vector<SampleGroup> groups;  // in order
};
// experts: how many denoisers the model has. first: samples of the first of two halves that no group may
// reach over; 0: there is one. Throws Error(kUsage).
CheckedCall check_call(const models::Family& family, const Json& config, const DenoiserCall& call,
                       int experts, int64_t first);

// A plan of a single step, whose result is the prediction itself.
class SingleEvaluation : public sampling::Sampler {
 public:
  SingleEvaluation(float time, int expert);
  std::span<const sampling::Step> steps() const override { return {&step_, 1}; }
  std::span<const float> sigmas() const override { return {}; }
  double init_noise_sigma() const override { return 1; }
  at::Tensor step(const at::Tensor& prediction, int, const at::Tensor& x, const at::Tensor&) override;
  at::Tensor add_noise(const at::Tensor& picture, const at::Tensor& noise, int i) const override;
  void hand_over_below(double time, double cfg) override;  // never: the call names its denoiser
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<SingleEvaluation>(*this); }

 private:
  sampling::Step step_;
};

}  // namespace atelier::pipeline
