// Which layouts a model allows on a number of ranks: limits, refusals with a way out, the default, and
// advice.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plan/parallel_config.h"

namespace atelier::plan {

// What decides about layouts, for one request.
struct ModelShape {
  std::string name;
  int heads = 1, blocks = 1;
  int64_t image_tokens = 1,
          text_tokens = 0;             // models with convolutions: the rows that may not be split further
  int branches = 1;                    // forwards per step: 2 with true classifier-free guidance
  bool has_convolution_mixer = false;  // convolutions mix positions: cut by rows, no stages
  bool has_skips = false;              // block n-1-i reads block i: folded route
  std::vector<int> stage_blocks;       // of each stage, where the user has set them
};

// What is known of the work, for advice only; 0: unknown.
struct Workload {
  int steps = 0;
  int batch = 0;
};

// Refuses what cannot work: a degree below 1, cfg=2 with one branch, more ranks than heads, tokens, patches
// or blocks, stages for a model with convolutions, weight shards that do not divide the sequence group, a
// product that is not num_gpus (0: unknown). Uneven splits and fewer text tokens than ranks are legal. Throws
// Error(kUsage) with the numbers and the nearest layouts that would work.
void validate(const ParallelConfig& degrees, const ModelShape& shape, int num_gpus);

// All valid layouts of exactly this many ranks: the least idle first (in whole per cent), among equals the
// default rule's preference: CFG, then Ulysses, then ring, stages, tensor, data.
std::vector<ParallelConfig> layouts(const ModelShape& shape, int num_gpus);

// The layout for a number of ranks when no degree was asked for: CFG 2 if there are two branches and an even
// count; then the largest Ulysses degree up to the heads that leaves at most a tenth of the attention idle
// (if there is none: the largest up to the heads); the rest ring; what finds no tokens, data. Always valid.
// num_gpus >= 1.
ParallelConfig automatic(const ModelShape& shape, int num_gpus);

// Share of the ranks' time that uneven runs of heads, tokens and blocks leave idle, in [0, 1).
double idle_share(const ParallelConfig& degrees, const ModelShape& shape);

// Lines for the user about a valid layout: idle shares with an even layout of the same size, settings that
// have no effect, a batch that the replicas do not divide.
std::vector<std::string> advice(const ParallelConfig& degrees, const ModelShape& shape, const Workload& work);

// Where PipeFusion cannot pay: steps that all run whole, fewer patches than stages, or too few steps for its
// stages, patches and warm-up. With the predicted idle share (modelled, and it says so) and what stale keys
// were measured to cost.
std::vector<std::string> warnings(const ParallelConfig& degrees, const ModelShape& shape,
                                  const Workload& work);

}  // namespace atelier::plan
