// Configurations of published models.
#pragma once
#include <vector>

#include "models/family.h"

namespace atelier::models {

std::vector<Preset> presets_sdxl();

}  // namespace atelier::models
