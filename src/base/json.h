// JSON for every room: nlohmann's type under one name, and reads whose errors name the file and the key.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace atelier {

using Json = nlohmann::json;

// Parses a whole file. Throws Error(kCheckpoint) naming the file and what is wrong with it.
Json read_json(const std::filesystem::path& file);
// Writes through a temporary file and a rename, so that no reader sees half of it.
void write_json(const std::filesystem::path& file, const Json& value);

}  // namespace atelier
