// Which models and devices a tier is for.
#pragma once
#include <c10/core/Device.h>

#include "base/model_facts.h"
#include "nn/builder.h"

namespace atelier::pipeline {

// Throws Error(kUsage) where blocks mix positions by convolutions, whose linears nobody has judged in eight bits, and
// for a GPU without products of eight-bit numbers. The CPU computes them from their values.
void check_tier(nn::Tier tier, const ModelFacts& facts, c10::Device device);

}  // namespace atelier::pipeline
