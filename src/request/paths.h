// The paths that a request names.
#pragma once
#include <functional>
#include <string>

#include "request/request.h"

namespace atelier::request {

// Writes `spelled_out(path)` in the place of every path of a picture, a video or an adapter, also of those
// that stand in one text with semicolons between them.
void rewrite_paths(Request& request, const std::function<std::string(const std::string&)>& spelled_out);

}  // namespace atelier::request
