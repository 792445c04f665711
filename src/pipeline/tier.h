// Which models and devices a tier, an attention kernel or attention in eight bits is for.
#pragma once
#include <c10/core/Device.h>

#include <string>

#include "base/model_facts.h"
#include "nn/attention.h"
#include "nn/builder.h"
#include "nn/sdpa.h"

namespace atelier::pipeline {

// Throws Error(kUsage) where blocks mix positions by convolutions, whose linears nobody has judged in eight
// bits, and for a GPU without products of eight-bit numbers. The CPU computes them from their values.
void check_tier(nn::Tier tier, const ModelFacts& facts, c10::Device device);
// Why FlashAttention 3 does not attend to bfloat16 on this device, empty where it does.
std::string flash3_problem(c10::Device device);
// Why this process has left FlashAttention 3 for other kernels; empty: it has not.
std::string flash3_failure();
// Throws Error(kUsage) for a kernel that this device, build or number type does not have, asked for by name.
void check_attention(nn::SdpaBackend attention, at::ScalarType denoiser, c10::Device device);
// Throws Error(kUsage) for attention in eight bits on a GPU that is not for it, or whose kernel, number type
// or package is another. The CPU attends to the values, whatever the type.
void check_attention_dtype(nn::AttentionDtype dtype, nn::SdpaBackend attention, at::ScalarType denoiser,
                           c10::Device device);
// Throws Error(kUsage) where the heads of a model cannot go as e4m3.
void check_attention_heads(nn::AttentionDtype dtype, const std::string& model, int64_t head_width);
// The same for what has been built to attend in e4m3: of its attentions, none does.
void check_attentions(const nn::LinearCounts& built, const std::string& model);

}  // namespace atelier::pipeline
