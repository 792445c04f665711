#include "weights/prefix.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace atelier::weights {
namespace {

constexpr int kMostParts = 16;  // of a prefix

// Stored name -> which of the tensors asked for it makes, or makes part of.
using Spellings = std::unordered_map<std::string, std::vector<int64_t>>;

Spellings spellings_of(std::span<const NameRule> rules, std::span<const std::string> asked) {
  Spellings spellings;
  for (size_t i = 0; i < asked.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    spellings[asked[i]].push_back(index);
    for (const auto& rule : rules) {
      const auto found = match(rule.canonical, asked[i]);
      if (!found) continue;
      for (const auto& part : rule.parts) spellings[fill(part.name, *found)].push_back(index);
    }
  }
  return spellings;
}

}  // namespace

std::vector<Place> find_places(std::span<const std::string> names, std::span<const NameRule> rules,
                               std::span<const std::string> asked) {
  const auto spellings = spellings_of(rules, asked);
  std::map<std::string, std::set<int64_t>> found;
  for (const auto& name : names) {
    size_t begin = 0;
    for (int parts = 0; parts <= kMostParts; ++parts) {
      if (const auto at = spellings.find(name.substr(begin)); at != spellings.end()) {
        found[name.substr(0, begin)].insert(at->second.begin(), at->second.end());
      }
      const auto dot = name.find('.', begin);
      if (dot == std::string::npos) break;
      begin = dot + 1;
    }
  }
  std::vector<Place> places;
  for (const auto& [prefix, tensors] : found) places.push_back({prefix, std::ssize(tensors)});
  std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.found != b.found ? a.found > b.found : a.prefix.size() > b.prefix.size();
  });
  return places;
}

}  // namespace atelier::weights
