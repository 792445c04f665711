// The settings that decide what a picture looks like, their hash, and what differs between two of them.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "request/item.h"

namespace atelier::request {

// The settings of a run (a flat object) with the item's own in place of them: prompt, negative_prompt,
// height, width, num_inference_steps, guidance_scale, seed. What neither sets is null.
Json item_settings(const Item& item, const Json& run);

// The same text for equal settings: keys sorted, nulls left out, 7.0 and 7 the same.
std::string canonical(const Json& settings);
// 16 hexadecimal digits of the SHA-256 of the canonical text.
std::string settings_hash(const Json& settings);

// Keys whose values differ, in order. A missing key is null. A seed that is not asked for differs from none,
// because any would do.
std::vector<std::string> differing_keys(const Json& asked, const Json& recorded);

}  // namespace atelier::request
