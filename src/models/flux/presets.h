// Configurations of the published FLUX.1 models.
#pragma once
#include <vector>

#include "models/family.h"

namespace atelier::models {

std::vector<Preset> presets_flux();

}  // namespace atelier::models
