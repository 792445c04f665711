// Configurations of the published PixArt-Sigma models.
#pragma once
#include <vector>

#include "models/family.h"

namespace atelier::models {

std::vector<Preset> presets_pixart();

}  // namespace atelier::models
