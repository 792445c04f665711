// Configurations of the published Wan models.
#pragma once
#include <vector>

#include "models/family.h"

namespace atelier::models {

std::vector<Preset> presets_wan_text();   // text to video, and the 5B
std::vector<Preset> presets_wan_image();  // image, first and last frame to video
std::vector<Preset> presets_wan_vace();

}  // namespace atelier::models
