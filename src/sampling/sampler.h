// Samplers as plain values: timesteps, and one step that is pointwise in tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/json.h"

namespace atelier::sampling {

// How a pipeline calls its scheduler.
struct Call {
  int steps = 1;
  bool linear_sigmas = false;     // the pipeline passes linspace(1, 1/n, n)
  std::optional<int64_t> tokens;  // image tokens, for shifts that depend on them
  std::optional<double> mu;       // given directly instead
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual std::span<const float> timesteps() const = 0;  // one per step
  virtual std::span<const float> sigmas() const = 0;     // one more than steps
  virtual double init_noise_sigma() const = 0;           // factor of the initial noise
  // x and prediction at step i, [n, B, C] -> x at step i + 1. Computes in float (double stays double).
  virtual at::Tensor step(const at::Tensor& prediction, int i, const at::Tensor& x) = 0;
  virtual std::unique_ptr<Sampler> clone() const = 0;  // one per PipeFusion patch
};

// By _class_name of scheduler_config.json. Throws Error(kCheckpoint) for a class or an option it does not
// have.
std::unique_ptr<Sampler> make_sampler(const Json& scheduler_config, const Call& call);

// Classifier-free guidance, Ho and Salimans (arXiv 2207.12598): negative + scale * (positive - negative).
at::Tensor guide(const at::Tensor& positive, const at::Tensor& negative, double scale);

// Standard normal numbers from the seed, drawn on the CPU so that every device starts from the same; float.
at::Tensor noise(at::IntArrayRef sizes, uint64_t seed);

}  // namespace atelier::sampling
