// PixArt checkpoints: names of diffusers folders and of the original files, as data, and what a single file
// tells about the model's sizes.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "weights/names.h"
#include "weights/store.h"

namespace atelier::models {

// diffusers folders: transformer_blocks.{}.attn1.to_q, ... -> blocks.{}.qkv, ...
std::vector<weights::NameRule> names_pixart_diffusers();

// The authors' own naming: blocks.{}.attn.qkv, t_block.1, y_embedder.y_proj.fc1, ... -> the same canonical
// names. prefix: what stands before every name, such as "model.diffusion_model.".
std::vector<weights::NameRule> names_pixart_original(std::string_view prefix = "");

// config.json of a single file in either naming, with what no tensor tells taken from `like`. Throws
// Error(kCheckpoint) for a file that is none.
Json config_of_pixart_file(const weights::WeightStore& file, const Json& like);

}  // namespace atelier::models
