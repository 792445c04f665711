// Stable Diffusion 3 models as published.
#pragma once
#include <vector>

#include "models/family.h"

namespace atelier::models {

std::vector<Preset> presets_sd3();

}  // namespace atelier::models
