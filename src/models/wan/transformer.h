// Wan's transformer and VACE's, built for the executor.
#pragma once
#include <memory>
#include <span>

#include "models/wan/config.h"
#include "nn/builder.h"
#include "nn/model.h"

namespace atelier::models {

// Streams of tokens. VACE's control is cut as the latents are and travels with them.
enum WanStream { kWanVideo, kWanControl };

// Builds the blocks of these ranges, and what belongs to the first and the last block.
std::unique_ptr<nn::Model> build_wan(const Json& config, const nn::Builder& b, std::span<const Range> blocks);

}  // namespace atelier::models
