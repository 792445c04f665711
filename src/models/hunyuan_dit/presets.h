// HunyuanDiT as published.
#pragma once
#include <vector>

#include "models/family.h"

namespace atelier::models {

std::vector<Preset> presets_hunyuan_dit();

}  // namespace atelier::models
