// Step caches: where what goes into a denoiser's blocks has changed little since they last ran, what they
// added then is added again, and they do not run. First block: ParaAttention's First Block Cache, as
// diffusers' FirstBlockCacheConfig has it. TeaCache: Liu et al. (arXiv 2411.19108).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/model_facts.h"
#include "models/family.h"
#include "plan/parallel_config.h"
#include "request/request.h"

namespace atelier::pipeline {

class ModelRepo;

struct StepCacheRule {
  enum StepCacheKind : uint8_t { kOff, kFirstBlock, kTea } kind = kOff;
  double threshold = 0;              // 0: nothing is reused
  std::vector<double> coefficients;  // of kTea, highest power first
  bool is_on() const { return kind != kOff; }
  int leading_blocks() const { return kind == kFirstBlock ? 1 : 0; }  // that always run
};

// Pictures x branches x steps whose blocks ran, or were left out.
struct StepCacheCounts {
  int64_t computed = 0, reused = 0;
};

// Of a settled request. config: of the denoiser.
StepCacheRule step_cache_rule(const request::Request& request, const models::Family& family,
                              const Json& config);

// What keeps a request's step cache from being used, in a sentence; empty: nothing, or it has none.
std::string step_cache_problem(const request::Request& request, const models::Family& family,
                               const Json& config, const ModelFacts& facts,
                               const plan::ParallelConfig& degrees);
std::string step_cache_problem(const request::Request& request, const ModelRepo& model,
                               const plan::ParallelConfig& degrees);

// Sums of one sample over all of its tokens.
struct SignalSums {
  double change = 0, size = 0;  // of |signal - reference|, of |reference|
};

// The decisions about one branch of a request. Each picture's are its own, whatever is drawn with it.
class StepCacheDecisions {
 public:
  // steps, samples >= 1
  StepCacheDecisions(const StepCacheRule& rule, int steps, int64_t samples)
      : rule_(rule), steps_(steps), samples_(static_cast<size_t>(samples)) {}
  // For each sample, whether it takes what is kept. Steps in order; one that another expert ran before counts
  // as the first. Sums that are no numbers are a change.
  std::vector<bool> decide(int step, int expert, std::span<const SignalSums> sums);

 private:
  struct Sample {
    double accumulated = 0;
  };
  bool is_reused(Sample& sample, const SignalSums& sums) const;

  StepCacheRule rule_;
  int steps_, expert_ = -1;
  std::vector<Sample> samples_;
};

// What one pass keeps from step to step. Recorded graphs read and write it.
struct StepCacheBuffers {
  at::Tensor hidden;     // [tokens held, B, C]: the state before the first block that may be left out
  at::Tensor signal;     // [latent tokens held, B, C]: what the first block added; not of TeaCache
  at::Tensor reference;  // the same: what the next signal is compared with
  at::Tensor rest;       // the same: what the blocks behind added when they last ran
  at::Tensor is_reused;  // [1, B, 1], bool: samples that take it although the others of the pass run
  at::Tensor sums;       // [2, B], double, of the tokens held here: change and size of SignalSums

  // Once; hidden: sizes of the state.
  void make(at::IntArrayRef hidden, int64_t latent_tokens, const StepCacheRule& rule,
            at::TensorOptions options);
  // Sums of this signal against the reference.
  void compare(const at::Tensor& now);
  int64_t bytes() const;
};

}  // namespace atelier::pipeline
