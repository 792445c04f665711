// Single-file SDXL checkpoints, which come without a config.
#pragma once
#include "base/json.h"
#include "weights/store.h"

namespace atelier::models {

// config.json of a UNet in Stability AI's naming or in diffusers': levels, channels and transformer blocks
// are counted from the tensors, what no tensor tells is taken from `like`. Heads are as wide as like's.
// Throws Error(kCheckpoint) for other UNets, by name: the refiner, those that take a mask or a picture,
// Stable Diffusion 1 and 2.
Json config_of_sdxl_file(const weights::WeightStore& file, const Json& like);

}  // namespace atelier::models
