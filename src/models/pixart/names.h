// PixArt checkpoints: names of diffusers folders and of the original files, as data.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "weights/names.h"

namespace atelier::models {

// diffusers folders: transformer_blocks.{}.attn1.to_q, ... -> blocks.{}.qkv, ...
std::vector<weights::NameRule> names_pixart_diffusers();

// The authors' own naming: blocks.{}.attn.qkv, t_block.1, y_embedder.y_proj.fc1, ... -> the same canonical names.
// prefix: what stands before every name, such as "model.diffusion_model.".
std::vector<weights::NameRule> names_pixart_original(std::string_view prefix = "");

}  // namespace atelier::models
