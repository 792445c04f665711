// Which blocks run where, and in which order a patch visits the stages: the split of a model over stages, as
// data.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "base/model_facts.h"
#include "plan/parallel_config.h"

namespace atelier::plan {

// Blocks [begin, end) run on this stage, then the patch goes on to the next chunk.
struct ModelChunk {
  int stage = 0, begin = 0, end = 0;
  bool operator==(const ModelChunk&) const = default;
};

// Equal runs of blocks, one per stage, the longer ones first. Throws Error(kUsage) if a stage would be left
// empty.
std::vector<ModelChunk> straight(int blocks, int stages);
// One run per stage of exactly these sizes (--attn_layer_num_for_pp). Throws Error(kUsage) unless there is
// one size per stage, each at least 1, and their sum is `blocks`.
std::vector<ModelChunk> straight(int blocks, int stages, std::span<const int> sizes);
// One run per stage that makes the most expensive stage as cheap as possible, and then the stages as even as
// possible; cost: one positive number per block, in any unit.
std::vector<ModelChunk> straight(std::span<const double> cost, int stages);

// For models whose block n-1-i needs the output of block i (long skips): stages 0..p-1, then p-1..0,
// mirrored, so that both ends of a skip live on one stage and the output ends on stage 0. With an odd number
// of blocks the last stage has the middle one. Throws Error(kUsage) if a stage would be left empty. One
// stage: one chunk.
std::vector<ModelChunk> folded(int blocks, int stages);

// What all ranks of a run agree on before they load.
struct Plan {
  ParallelConfig config;
  std::vector<ModelChunk> chunks;  // the route of a patch
  bool cuts_rows = false;          // the sequence ranks hold rows of a picture, not tokens
};
// Models with skips get the folded route; others config.stage_blocks, or a split by cost. Throws
// Error(kUsage) as the functions above do.
Plan plan_for(const ParallelConfig& config, const ModelFacts& facts);

// The blocks a stage builds, ascending; the folded route gives a stage two runs.
std::vector<ModelChunk> chunks_of(std::span<const ModelChunk> route, int stage);
int stages_of(std::span<const ModelChunk> route);
// Which ranks have which blocks: "rank 0 blocks 0-14, rank 1 blocks 15-29"; both ends counted. Throws as
// plan_for does.
std::string blocks_by_rank(const ParallelConfig& config, const ModelFacts& facts);

}  // namespace atelier::plan
