// Which layouts a model allows on a number of ranks: limits, refusals with a way out, the default, and
// advice.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/model_facts.h"
#include "plan/parallel_config.h"

namespace atelier::plan {

// One request, or the least of a run, as far as it decides about layouts.
struct Workload {
  int64_t image_tokens = 1;  // models with convolutions: the rows that may not be split further
  int64_t text_tokens = 0;
  int branches = 1;             // forwards per step: 2 with classifier-free guidance
  int steps = 0, batch = 0;     // for advice only; 0: unknown
  int64_t pictures = 0;         // to be drawn in all; the same
  bool has_step_cache = false;  // of any picture: for memory only
};

// What a layout is sought for.
struct LayoutQuery {
  ModelFacts model;
  Workload work;
};

// Refuses what cannot work: a degree below 1, cfg=2 with one branch, more ranks than heads, tokens, patches
// or blocks, stages for a model with convolutions, weight shards that do not divide the sequence group, a
// product that is not num_gpus (0: unknown). Uneven splits and fewer text tokens than ranks are legal. Throws
// Error(kUsage) with the numbers and the nearest layouts that would work.
void validate(const ParallelConfig& degrees, const LayoutQuery& query, int num_gpus);

// All valid layouts of exactly this many ranks: the least idle first (in whole per cent), among equals the
// default rule's preference: CFG, then Ulysses, then ring, K/V gather, stages, tensor, data.
std::vector<ParallelConfig> layouts(const LayoutQuery& query, int num_gpus);

// The layout for a number of ranks when no degree was asked for: CFG 2 if there are two branches and an even
// count; then the largest Ulysses degree up to the heads that leaves at most a tenth of the attention idle
// (if there is none: the largest up to the heads); the rest ring; what finds no tokens, data. Always valid.
// num_gpus >= 1.
ParallelConfig automatic(const LayoutQuery& query, int num_gpus);

// The layout that splits a batch of the denoiser: CFG 2 if there are two branches and an even count; then as
// many data groups as divide the rest and find a picture of the batch each; what is left of the ranks as
// automatic() has it for one branch. Always valid. num_gpus >= 1.
ParallelConfig split_batch(const LayoutQuery& query, int num_gpus);

// Share of the ranks' time that uneven runs of heads, tokens and blocks leave idle, in [0, 1).
double idle_share(const ParallelConfig& degrees, const LayoutQuery& query);

// Lines for the user about a valid layout: idle shares with an even layout of the same size, settings that
// have no effect, a batch that the replicas do not divide.
std::vector<std::string> advice(const ParallelConfig& degrees, const LayoutQuery& query);

// Where PipeFusion cannot pay: steps that all run whole, fewer patches than stages, or too few steps for its
// stages, patches and warm-up. With the predicted idle share (modelled, and it says so) and what stale keys
// were measured to cost.
std::vector<std::string> warnings(const ParallelConfig& degrees, const LayoutQuery& query);

}  // namespace atelier::plan
