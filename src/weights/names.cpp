#include "weights/names.h"

#include <algorithm>

namespace atelier::weights {

std::optional<Match> match(std::string_view pattern, std::string_view name) {
  Match found;
  while (!pattern.empty()) {
    if (pattern.starts_with("{}")) {
      const auto digits = std::min(name.find_first_not_of("0123456789"), name.size());
      if (digits == 0) return std::nullopt;
      found.indices.emplace_back(name.substr(0, digits));
      pattern.remove_prefix(2);
      name.remove_prefix(digits);
    } else {
      if (name.empty() || name.front() != pattern.front()) return std::nullopt;
      pattern.remove_prefix(1);
      name.remove_prefix(1);
    }
  }
  if (!name.empty() && name.front() != '.') return std::nullopt;
  found.suffix = name;
  return found;
}

std::string fill(std::string_view pattern, const Match& match) {
  std::string out;
  size_t index = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern.substr(i).starts_with("{}") && index < match.indices.size()) {
      out += match.indices[index++];
      ++i;
    } else {
      out += pattern[i];
    }
  }
  return out + match.suffix;
}

bool is_added(std::string_view canonical) {
  return canonical.ends_with(".added.weight");
}

}  // namespace atelier::weights
