// What all samplers share: a plan laid out at construction, a first step, and the width they compute in.
#pragma once
#include <span>
#include <vector>

#include "sampling/noise_schedule.h"
#include "sampling/sampler.h"

namespace atelier::sampling {

struct SamplerPlan {
  std::vector<Step> steps;
  std::vector<float> sigmas;       // steps + 1, or steps + 2
  std::vector<NoiseLevel> levels;  // steps + 1: of x before each step, and after the last
  double init_noise_sigma = 1;
};

class PlannedSampler : public Sampler {
 public:
  std::span<const Step> steps() const override { return std::span(plan_.steps).subspan(first_); }
  std::span<const float> sigmas() const override { return std::span(plan_.sigmas).subspan(first_); }
  double init_noise_sigma() const override { return plan_.init_noise_sigma; }
  at::Tensor step(const at::Tensor& prediction, int i, const at::Tensor& x, const at::Tensor& noise) override;
  at::Tensor add_noise(const at::Tensor& picture, const at::Tensor& noise, int i) const override;
  void hand_over_below(double time, double cfg) override;

 protected:
  // order: steps of the plan for one of inference; begin: Call::begin. Throws Error(kUsage) if
  // nothing is left.
  PlannedSampler(SamplerPlan plan, int begin, int order = 1);
  const SamplerPlan& plan() const { return plan_; }
  // The same as step(), with i counted from the beginning of the plan, in float or double.
  virtual at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                             const at::Tensor& noise) = 0;

 private:
  SamplerPlan plan_;
  size_t first_ = 0;
};

}  // namespace atelier::sampling
