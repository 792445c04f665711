// Wan checkpoints: names of diffusers folders and of the original repository, as data.
#pragma once
#include <string_view>
#include <vector>

#include "base/json.h"
#include "weights/names.h"
#include "weights/store.h"

namespace atelier::models {

// diffusers: blocks.{}.attn1.to_q, ... -> canonical names, blocks.{}.self.qkv, ...
std::vector<weights::NameRule> names_wan_diffusers();
// The original repository, and what grew around it: blocks.{}.self_attn.q, ... prefix: what stands before
// every name, such as "model.diffusion_model.".
std::vector<weights::NameRule> names_wan_original(std::string_view prefix = "");
// All of them, the original ones bare and behind the prefixes that single files have.
std::vector<weights::NameRule> names_wan();

// The config of a file in either naming, as diffusers would write it: sizes from the tensors, heads of
// `like`'s width. Throws Error(kCheckpoint) for a file that holds no Wan transformer, and for variants that
// this build does not have, by name.
Json config_of_wan_file(const weights::WeightStore& file, const Json& like);

}  // namespace atelier::models
