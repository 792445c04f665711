// HunyuanDiT checkpoints: the names of diffusers folders and of Tencent's own files as data, and what a
// single file tells about the model's sizes.
#pragma once
#include <vector>

#include "base/json.h"
#include "weights/names.h"
#include "weights/store.h"

namespace atelier::models {

// Both namings to canonical names, which are those of diffusers but for fused projections. The halves of the
// last modulation lie the other way round in Tencent's files, and its second and third norm of a block have
// each other's names: a config that was read off such a file says so.
std::vector<weights::NameRule> names_hunyuan_dit(const Json& config);
// config.json of a single file in either naming, with what no tensor tells taken from `like`. Throws
// Error(kCheckpoint) for a file that is none.
Json config_of_hunyuan_dit_file(const weights::WeightStore& file, const Json& like);

}  // namespace atelier::models
