// What a picture that is there already says of itself.
#pragma once
#include <filesystem>

#include "base/json.h"
#include "jobs/resume.h"

namespace atelier::app {

// Whether it is whole, its digest, and the look that its metadata holds; null where another tool made
// it. Never throws.
jobs::Inspection inspect(const std::filesystem::path& file);
// A look in the form in which metadata holds it.
Json as_text(const Json& settings);

}  // namespace atelier::app
