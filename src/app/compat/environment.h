// The DG_ variables that Diffgentor and its back ends know.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace atelier::app {

using Environment = std::map<std::string, std::string>;

// Of this process.
Environment environment();

// Variables that are known and mean nothing here, in order. Their values are never shown: some are keys.
std::vector<std::string> unused_variables(const Environment& environment,
                                          const std::vector<std::string>& used);
// One sentence per DG_ variable that nobody knows, with the nearest known one.
std::vector<std::string> unknown_variables(const Environment& environment,
                                           const std::vector<std::string>& used);

// The candidate that differs least from the name, none if all differ too much.
std::string nearest_name(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace atelier::app
