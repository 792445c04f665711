// Stable Diffusion 3 checkpoints: the names of both namings as data, and what a single file in either of them
// tells about the model's sizes (such files come without a config).
#pragma once
#include <string_view>
#include <vector>

#include "base/json.h"
#include "weights/names.h"
#include "weights/store.h"

namespace atelier::models {

// Of diffusers folders (transformer_blocks.{}.attn.to_q) and of Stability AI's own naming
// (joint_blocks.{}.x_block .attn.qkv), with and without model.diffusion_model. before every name, to
// joint.{}.image.qkv and so on. Fused tensors and modulations with their halves the other way round are cut
// by the width of `config`.
std::vector<weights::NameRule> names_sd3(const Json& config);
// Globs of tensors that nobody reads: the text's queries in the last block, and the other parts
// of single files.
std::vector<std::string_view> ignorable_sd3();
// config.json of a single file, with what no tensor tells taken from `like`. Throws Error(kCheckpoint) for a
// file that is none.
Json config_of_sd3_file(const weights::WeightStore& file, const Json& like);

}  // namespace atelier::models
