#include "request/row_names.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/quote.h"
#include "base/suggest.h"

namespace atelier::request {

void RowNames::tell_of_unknown(const Json& row, const std::string& where,
                               std::vector<std::string>& warnings) {
  for (const auto& [name, value] : row.items()) {
    if (told_.size() > kMostTold) return;
    if (std::find(known_.begin(), known_.end(), name) != known_.end() || !told_.insert(name).second) continue;
    const bool is_last = told_.size() > kMostTold;
    warnings.push_back(is_last ? str(where, ": further fields that have no effect are not named")
                               : str(where, ": the field \"", name.substr(0, 60), "\" has no effect",
                                     did_you_mean(name, known_)));
  }
}

std::string meant_as_prompt(std::span<const std::string> names) {
  const std::string prompt[] = {"prompt"};
  for (const auto& name : names) {
    if (!suggestion(name, prompt).empty()) return str("; ", in_quotes(name), " is to be called prompt");
  }
  return {};
}

std::string prompt_meant_in(const Json& row) {
  std::vector<std::string> names;
  for (const auto& [name, value] : row.items()) names.push_back(name);
  return meant_as_prompt(names);
}

}  // namespace atelier::request
