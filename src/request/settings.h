// What an output looks like (look()), compared: a hash, and what differs between two of them.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atelier::request {

// The same text for equal settings: keys sorted, nulls left out, 7.0 and 7 the same.
std::string canonical(const Json& settings);
// Ends the keys whose values stand for the contents of a model's files. Where there are any, the model's name
// and revision do not count: one model has many.
inline constexpr std::string_view kHashSuffix = "_hash";

// 16 hexadecimal digits of the SHA-256 of the canonical text.
std::string settings_hash(const Json& settings);

// Keys whose values differ, in order. A missing key is null. Of adapters whose files hold the same the paths
// do not count, strengths and experts do. A seed that is not asked for differs from none,
// because any would do.
std::vector<std::string> differing_keys(const Json& asked, const Json& recorded);

}  // namespace atelier::request
