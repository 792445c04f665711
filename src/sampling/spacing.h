// Where the steps of a sampler lie: timesteps by spacing, and curves of sigmas.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sampling/sampler.h"
#include "sampling/scheduler_config.h"

namespace atelier::sampling {

// n numbers from first to last, as numpy rounds them.
std::vector<double> linspace(double first, double last, int64_t n);
// Between table[i] and table[i + 1], at i + fraction; outside, the nearest end.
double interpolate(std::span<const float> table, double at);

struct SpacingRule {
  const char* otherwise = "leading";  // without timestep_spacing
  int64_t spare = 0;                  // steps that are laid out and left out at the clean end
  bool whole = true;                  // linspace is rounded to integers
  int64_t range = 0;                  // of the trained timesteps, from 0; 0: all
};
// Falling timesteps: table 2 of Lin et al. (arXiv 2305.08891). Throws Error(kUsage) for more steps than fit.
std::vector<double> spaced_timesteps(const SchedulerConfig& config, int steps, const SpacingRule& rule);

enum class SigmaCurve { kPlain, kKarras, kExponential, kBeta };
// Throws Error(kCheckpoint) if several are asked for.
SigmaCurve sigma_curve(const SchedulerConfig& config);
// n sigmas from the largest to the smallest (the configuration's sigma_max and sigma_min, or the given ones):
// Karras et al. (arXiv 2206.00364), equation 5, with rho 7; evenly in the logarithm; quantiles of the beta
// distribution (0.6, 0.6) (arXiv 2407.12173).
std::vector<double> curved_sigmas(SigmaCurve curve, const SchedulerConfig& config, double largest,
                                  double smallest, int64_t n);

// The timestep, with a fraction, at which training had this sigma. log_sigmas: of all trained timesteps,
// rising.
double timestep_of(double sigma, std::span<const float> log_sigmas);
// Of a sigma that was given by hand, which the reference keeps as a float and computes with as such.
double timestep_of_given(float sigma, std::span<const float> log_sigmas);
std::vector<float> logs_of(std::span<const float> sigmas);

// Throws Error(kUsage) naming what the class cannot be given.
void refuse_sigmas(const Call& call, const char* why);
void refuse_timesteps(const Call& call, const char* why);
// timesteps by hand: integers that fall, within the trained range. Throws Error(kUsage).
std::vector<double> given_timesteps(const Call& call, int64_t trained);
// num_inference_steps within 1 and `most`. Throws Error(kUsage).
void check_steps(const Call& call, int64_t most);

}  // namespace atelier::sampling
