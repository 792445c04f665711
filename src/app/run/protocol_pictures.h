// Pictures of a protocol's layouts against those of one GPU.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "base/json.h"

namespace atelier::app {

// Fills result["quality"]: of every measured row that drew single pictures on several ranks, against the row
// of one rank with the same size. Returns, by row, what is to be shown (WebP): one rank's picture, the
// layout's and their difference; the same into folder/heat/. Rows whose pictures differ by no more than
// rounding have none.
std::map<std::string, std::string> compare_pictures(Json& result, const std::filesystem::path& folder);

}  // namespace atelier::app
