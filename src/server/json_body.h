// A client's JSON.
#pragma once
#include <string>

#include "base/json.h"

namespace atelier::server {

// Throws ApiError (400) for what is no UTF-8, no JSON, or nested too deep.
Json parsed_json(const std::string& body);

}  // namespace atelier::server
