// Configurations of published models, so that full-size runs with random weights need no files.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::models {

std::vector<std::string> preset_names();
// One object: _class_name of the pipeline, and each component's config under its folder's name. Throws
// Error(kUsage) naming the known presets.
Json preset(const std::string& name);

}  // namespace atelier::models
