#include "weights/prefix.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace atelier::weights {
namespace {

constexpr int kMostParts = 16;       // of a prefix
constexpr size_t kMostJoined = 128;  // bytes of a prefix that does not end at a dot

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
// Stored name -> which of the tensors asked for it makes, or makes part of.
using Spellings = std::unordered_map<std::string, std::vector<int64_t>, TextHash, std::equal_to<>>;
using Found = std::map<std::string, std::set<int64_t>, std::less<>>;

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

// Notes that `name` is one of the spellings behind its first `begin` bytes, if it is.
void look(const Spellings& spellings, std::string_view name, size_t begin, Found& found) {
  const auto at = spellings.find(name.substr(begin));
  if (at != spellings.end())
    found[std::string(name.substr(0, begin))].insert(at->second.begin(), at->second.end());
}

Found behind_dots(std::span<const std::string> names, const Spellings& spellings) {
  Found found;
  for (const auto& name : names) {
    size_t begin = 0;
    for (int parts = 0; parts <= kMostParts; ++parts) {
      look(spellings, name, begin, found);
      const auto dot = name.find('.', begin);
      if (dot == std::string::npos) break;
      begin = dot + 1;
    }
  }
  return found;
}

Found behind_anything(std::span<const std::string> names, const Spellings& spellings) {
  Found found;
  for (const auto& name : names) {
    for (size_t begin = 0; begin < std::min(name.size(), kMostJoined); ++begin)
      look(spellings, name, begin, found);
  }
  return found;
}

}  // namespace

std::vector<Place> find_places(std::span<const std::string> names, std::span<const NameRule> rules,
                               std::span<const std::string> asked) {
  const auto spellings = spellings_of(rules, asked);
  const auto has_half = [&](const auto& place) {
    return 2 * place.second.size() >= std::min(asked.size(), names.size());
  };
  auto found = behind_dots(names, spellings);
  if (std::none_of(found.begin(), found.end(), has_half)) {
    auto joined = behind_anything(names, spellings);
    std::erase_if(joined, [&](const auto& place) { return !has_half(place); });
    found.merge(joined);
  }
  std::vector<Place> places;
  for (const auto& [prefix, tensors] : found) places.push_back({prefix, std::ssize(tensors)});
  std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.found != b.found ? a.found > b.found : a.prefix.size() > b.prefix.size();
  });
  return places;
}

}  // namespace atelier::weights
