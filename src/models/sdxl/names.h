// Names of the UNet's tensors in checkpoints, as data.
#pragma once
#include <string_view>
#include <vector>

#include "models/sdxl/config.h"
#include "weights/names.h"

namespace atelier::models {

// diffusers folders: their names, with q, k and v in one.
std::vector<weights::NameRule> names_unet_diffusers();

// The naming of the original repository (Stability AI, generative-models): input_blocks, middle_block and
// output_blocks, whose numbers depend on the blocks of the model. prefix: before every name, such as
// "model.diffusion_model.".
std::vector<weights::NameRule> names_unet_original(const UNetConfig& config, std::string_view prefix = "");

}  // namespace atelier::models
