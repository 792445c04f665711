// Texts from outside as JSON.
#pragma once
#include <string_view>

#include "base/json.h"

namespace atelier {

// Discarded where it is no JSON or nests deeper than kMaxDepth: copies and dumps recurse.
Json parse_json(std::string_view text);

}  // namespace atelier
