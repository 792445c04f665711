// Which blocks run on which pipeline stage.
#pragma once
#include <span>
#include <vector>

#include "models/family.h"
#include "plan/parallel_config.h"
#include "plan/route.h"

namespace atelier::pipeline {

// stage_blocks: blocks of each stage as the user has set them; empty: by the blocks' cost. Models with skip
// connections get the folded route.
std::vector<plan::ModelChunk> pipeline_route(const plan::ParallelConfig& degrees,
                                             std::span<const int> stage_blocks, const models::Facts& facts);

}  // namespace atelier::pipeline
