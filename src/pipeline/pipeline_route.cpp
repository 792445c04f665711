#include "pipeline/pipeline_route.h"

namespace atelier::pipeline {

std::vector<plan::ModelChunk> pipeline_route(const plan::ParallelConfig& degrees,
                                             std::span<const int> stage_blocks, const models::Facts& facts) {
  const int stages = degrees.pipeline;
  if (facts.has_skips) return plan::folded(facts.blocks, stages);
  if (!stage_blocks.empty()) return plan::straight(facts.blocks, stages, stage_blocks);
  return plan::straight(facts.cost, stages);
}

}  // namespace atelier::pipeline
