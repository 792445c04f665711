#include "weights/names.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <tuple>

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

bool glob_matches(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, retry = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool any_glob_matches(std::span<const std::string_view> patterns, std::string_view text) {
  return std::any_of(patterns.begin(), patterns.end(), [&](auto p) { return glob_matches(p, text); });
}

namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t swap = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({swap, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> nearest(std::string_view name, std::span<const std::string> candidates, int count) {
  std::vector<std::pair<size_t, const std::string*>> ranked;
  const size_t limit = name.size() / 2;
  for (const auto& c : candidates) {
    const auto gap =
        static_cast<size_t>(std::abs(static_cast<long>(c.size()) - static_cast<long>(name.size())));
    if (gap > limit) continue;
    const size_t distance = edit_distance(name, c);
    if (distance <= limit) ranked.emplace_back(distance, &c);
  }
  const auto n = std::min(ranked.size(), static_cast<size_t>(count));
  std::partial_sort(
      ranked.begin(), ranked.begin() + static_cast<long>(n), ranked.end(),
      [](auto& a, auto& b) { return std::tie(a.first, *a.second) < std::tie(b.first, *b.second); });
  std::vector<std::string> out;
  for (size_t i = 0; i < n; ++i) out.push_back(*ranked[i].second);
  return out;
}

}  // namespace atelier::weights
