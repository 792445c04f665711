// The file behind --config: YAML or JSON, read into typed values.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"

namespace atelier::app {

struct Config {
  Json values;                       // an object; empty for an empty file
  std::map<std::string, int> lines;  // of every key, nested ones as "a.b"; empty for JSON files
  Json written;  // values again, plain scalars as the text that stands there: "007", "yes"
};

// .yaml, .yml or .json. Plain YAML scalars get their type: true/yes/on and false/no/off, numbers, null;
// quoted ones stay text; what takes a text takes the written one. One document. Throws Error(kUsage) naming
// file and line: no such file, another suffix, broken syntax, a key twice, no mapping at the top, nested
// deeper than 64 levels, more than 100,000 values.
Config read_config(const std::filesystem::path& file);
// The same for text that stands for a file of this name.
Config parse_config(const std::string& text, const std::filesystem::path& file);

}  // namespace atelier::app
