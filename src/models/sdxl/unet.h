// Builds the UNet.
#pragma once
#include <memory>
#include <span>

#include "models/sdxl/config.h"
#include "nn/builder.h"
#include "nn/model.h"

namespace atelier::models {

// Of a Conditioning it reads, whole: "embeds" [B, T, text], "pooled" [B, P] and "time_ids" [B, 6].
std::unique_ptr<nn::Model> build_unet(const UNetConfig& config, const nn::Builder& b,
                                      std::span<const Range> blocks);

}  // namespace atelier::models
