// The DG_ variables that Diffgentor and its back ends know.
#pragma once
#include <map>
#include <string>
#include <vector>

namespace atelier::app {

using Environment = std::map<std::string, std::string>;

// Of this process.
Environment environment();
// Empty if there is none.
std::string value_of(const Environment& environment, const std::string& name);

// DG_ variables that nothing here uses. Their values are never shown: some are keys.
struct Unused {
  std::vector<std::string> idle;     // names that the tools they come from know
  std::vector<std::string> unknown;  // one sentence each, with the nearest known name
};
Unused unused_variables(const Environment& environment, const std::vector<std::string>& used);

}  // namespace atelier::app
