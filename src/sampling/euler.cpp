// Euler steps along sigma, without and with new noise in each step. Karras et al. (arXiv 2206.00364);
// upstream: diffusers scheduling_euler_discrete.py, scheduling_euler_ancestral_discrete.py.
#include <ATen/TensorOperators.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "sampling/library_math.h"
#include "sampling/samplers.h"
#include "sampling/sigma_schedule.h"

namespace atelier::sampling {
namespace {

using enum PredictionType;

class Euler : public PlannedSampler {
 public:
  Euler(const SchedulerConfig& c, const Call& call)
      : PlannedSampler(sigma_plan(c, call, {}), call.begin),
        type_(prediction_type(c, {kEpsilon, kV, kSample})) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<Euler>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor&) override {
    const float sigma = plan().sigmas[i];
    return x + (plan().sigmas[i + 1] - sigma) * derivative_of(type_, sigma, x, prediction);
  }

 private:
  PredictionType type_;
};

// A step that goes further down, and the noise that brings it back up.
struct AncestralStep {
  float down, up;
  AncestralStep(float from, float to) : up(lib_sqrt(to * to * (from * from - to * to) / (from * from))) {
    down = lib_sqrt(to * to - up * up);
  }
};

SamplerPlan ancestral_plan(const SchedulerConfig& c, const Call& call) {
  auto plan = sigma_plan(c, call, {.curves = false, .euler_extras = false});
  for (size_t i = 0; i < plan.steps.size(); ++i)
    plan.steps[i].draws_noise = AncestralStep(plan.sigmas[i], plan.sigmas[i + 1]).up != 0;
  return plan;
}

class EulerAncestral : public PlannedSampler {
 public:
  EulerAncestral(const SchedulerConfig& c, const Call& call)
      : PlannedSampler(ancestral_plan(c, call), call.begin), type_(prediction_type(c, {kEpsilon, kV})) {}
  std::unique_ptr<Sampler> clone() const override { return std::make_unique<EulerAncestral>(*this); }

 protected:
  at::Tensor advance(const at::Tensor& prediction, size_t i, const at::Tensor& x,
                     const at::Tensor& noise) override {
    const float sigma = plan().sigmas[i];
    const AncestralStep step(sigma, plan().sigmas[i + 1]);
    const auto moved = x + (step.down - sigma) * derivative_of(type_, sigma, x, prediction);
    return noise.defined() ? moved + step.up * noise : moved;
  }

 private:
  PredictionType type_;
};

}  // namespace

std::unique_ptr<Sampler> make_euler(const Json& config, const Call& call) {
  // Another word for the same.
  if (config.value("prediction_type", Json()) != "original_sample")
    return std::make_unique<Euler>(SchedulerConfig(config), call);
  Json renamed = config;
  renamed["prediction_type"] = "sample";
  return std::make_unique<Euler>(SchedulerConfig(renamed), call);
}

std::unique_ptr<Sampler> make_euler_ancestral(const Json& config, const Call& call) {
  return std::make_unique<EulerAncestral>(SchedulerConfig(config), call);
}

}  // namespace atelier::sampling
