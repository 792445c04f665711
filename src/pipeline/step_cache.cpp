#include "pipeline/step_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "pipeline/model_repo.h"

namespace atelier::pipeline {
namespace {

double polynomial(std::span<const double> coefficients, double x) {
  double value = 0;
  for (const double c : coefficients) value = value * x + c;
  return value;
}

std::vector<double> tea_coefficients(const models::Family& family, const Json& config) {
  return family.tea_coefficients ? family.tea_coefficients(config) : std::vector<double>();
}

}  // namespace

StepCacheRule step_cache_rule(const request::Request& r, const models::Family& family, const Json& config) {
  if (!r.cache_type) return {};
  ENSURE(r.cache_threshold.has_value());
  if (*r.cache_type == request::kTeaCache)
    return {StepCacheRule::kTea, *r.cache_threshold, tea_coefficients(family, config)};
  return {StepCacheRule::kFirstBlock, *r.cache_threshold, {}};
}

std::string step_cache_problem(const request::Request& r, const models::Family& family, const Json& config,
                               const ModelFacts& facts, const plan::ParallelConfig& degrees) {
  if (!r.cache_type || r.cache_type == "none") return {};
  const std::string what = "cache_type " + *r.cache_type;
  if (facts.has_convolution_mixer)
    return str(what, " is for transformers: blocks of ", family.name, ", a UNet, see several sizes");
  if (facts.blocks < 2) return str(what, " leaves blocks out, and the model has one");
  if (*r.cache_type == request::kTeaCache && tea_coefficients(family, config).empty())
    return str(what, " has no published coefficients for ", family.name, ": use first_block_cache");
  if (degrees.pipeline > 1)
    return str(what, " leaves blocks out for all tokens, and stages of pipefusion_degree ", degrees.pipeline,
               " hold the blocks apart: use data, cfg, ulysses, ring or tensor in place of it");
  if (plan::patch_count(degrees) > 1) return str(what, " knows no patches that flow");
  return {};
}

std::string step_cache_problem(const request::Request& r, const ModelRepo& model,
                               const plan::ParallelConfig& degrees) {
  return step_cache_problem(r, model.family(), model.denoiser(), model.facts(), degrees);
}

std::vector<bool> StepCacheDecisions::decide(int step, int expert, std::span<const SignalSums> sums) {
  ENSURE(sums.size() == samples_.size());
  const bool is_first = expert != expert_;
  const bool is_whole = is_first || (rule_.kind == StepCacheRule::kTea && step + 1 == steps_);
  expert_ = expert;
  std::vector<bool> reused(samples_.size());
  for (size_t i = 0; i < samples_.size(); ++i) {
    if (is_whole) samples_[i] = {};
    reused[i] = !is_whole && is_reused(samples_[i], sums[i]);
  }
  return reused;
}

bool StepCacheDecisions::is_reused(Sample& sample, const SignalSums& sums) const {
  if (rule_.threshold <= 0) return false;
  const double change = sums.change == 0 ? 0 : sums.change / sums.size;
  if (rule_.kind == StepCacheRule::kFirstBlock) return change <= rule_.threshold;
  sample.accumulated += polynomial(rule_.coefficients, change);
  if (sample.accumulated < rule_.threshold) return true;
  sample.accumulated = 0;
  return false;
}

void StepCacheBuffers::make(at::IntArrayRef sizes, int64_t latent_tokens, const StepCacheRule& rule,
                            at::TensorOptions options) {
  const int64_t batch = sizes[1], width = sizes[2];
  if (!hidden.defined()) {
    hidden = at::zeros(sizes, options);
    reference = at::zeros({latent_tokens, batch, width}, options);
    rest = at::zeros({latent_tokens, batch, width}, options);
    is_reused = at::zeros({1, batch, 1}, options.dtype(at::kBool));
    sums = at::zeros({2, batch}, options.dtype(at::kDouble));
  }
  if (rule.kind == StepCacheRule::kFirstBlock && !signal.defined())
    signal = at::zeros(reference.sizes(), reference.options());
}

// The difference has the type of the model, as in the reference; sums are double, so that layouts
// agree about them.
void StepCacheBuffers::compare(const at::Tensor& now) {
  sums[0].copy_((now - reference).abs_().sum(at::IntArrayRef{0, 2}, false, at::kDouble));
  sums[1].copy_(reference.abs().sum(at::IntArrayRef{0, 2}, false, at::kDouble));
}

int64_t StepCacheBuffers::bytes() const {
  int64_t all = 0;
  for (const auto& t : {hidden, signal, reference, rest, is_reused, sums})
    all += t.defined() ? static_cast<int64_t>(t.nbytes()) : 0;
  return all;
}

}  // namespace atelier::pipeline
