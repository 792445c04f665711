// Samplers as plain values: a plan of steps that is known beforehand, and one update per step that is
// pointwise in tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::sampling {

// How a pipeline calls its scheduler.
struct Call {
  int steps = 1;               // of inference; a sampler of second order calls the denoiser more often
  bool linear_sigmas = false;  // the pipeline passes linspace(1, 1/n, n)
  std::optional<int64_t> tokens = {};  // image tokens, for shifts that depend on them
  std::optional<double> mu = {};       // given directly instead
  int begin = 0;                       // steps left out at the front: image to image begins at a later one
  double eta = 0;                      // share of noise that DDIM draws anew, 0 to 1
  // Given by hand, as diffusers' set_timesteps takes them; they decide the number of steps. Empty: none.
  std::vector<double> sigmas = {}, timesteps = {};
};

// What one step is, as far as it is known before the first one runs.
struct Step {
  float time = 0;                  // what the denoiser is told
  float input_divisor = 1;         // of the latents on their way into the denoiser
  std::optional<double> cfg = {};  // scale of the guidance in this step; unset: the request's
  int expert = 0;                  // which of the denoisers runs
  bool draws_noise = false;        // step() wants noise
};

class Sampler {
 public:
  virtual ~Sampler() = default;
  virtual std::span<const Step> steps() const = 0;
  virtual std::span<const float> sigmas()
      const = 0;                                // one more than steps, or two where the reference has two
  virtual double init_noise_sigma() const = 0;  // factor of the initial noise
  // x and prediction at step i, [n, B, C] -> x at step i + 1; noise: standard normal, like x where the step
  // draws it, undefined otherwise. Computes in float (double stays double).
  virtual at::Tensor step(const at::Tensor& prediction, int i, const at::Tensor& x,
                          const at::Tensor& noise) = 0;
  // A clean picture as noisy as x is before step i; at the number of steps it is clean. Both of
  // one shape, any.
  virtual at::Tensor add_noise(const at::Tensor& picture, const at::Tensor& noise, int i) const = 0;
  virtual std::unique_ptr<Sampler> clone() const = 0;  // one per PipeFusion patch
  // Steps that are told a time below `time` are run by the second denoiser, with this scale of the guidance.
  virtual void hand_over_below(double time, double cfg) = 0;
};

// What the denoiser is told in each step.
std::vector<float> times(const Sampler& sampler);
// Whether any step has an input_divisor other than 1.
bool scales_input(const Sampler& sampler);

// By _class_name of scheduler_config.json. Throws Error(kCheckpoint) for a class or an option it
// does not have.
std::unique_ptr<Sampler> make_sampler(const Json& scheduler_config, const Call& call);

}  // namespace atelier::sampling
