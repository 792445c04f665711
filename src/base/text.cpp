// Trimming, UTF-8, lines and numbers.
#include "base/text.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <tuple>

namespace atelier {
namespace {

template <class T>
std::optional<T> whole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// Bytes of the code point that starts here; 0 if it is none.
size_t code_point(std::string_view t) {
  const auto at = [&](size_t i) -> unsigned { return i < t.size() ? static_cast<unsigned char>(t[i]) : 0; };
  const auto is_tail = [&](size_t i) { return at(i) >> 6 == 2; };
  const unsigned a = at(0), b = at(1);
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return is_tail(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    const bool is_bad = (a == 0xE0 && b < 0xA0) || (a == 0xED && b > 0x9F);
    return !is_bad && is_tail(1) && is_tail(2) ? 3 : 0;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    const bool is_bad = (a == 0xF0 && b < 0x90) || (a == 0xF4 && b > 0x8F);
    return !is_bad && is_tail(1) && is_tail(2) && is_tail(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t size = code_point(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find_first_of("\r\n");
    lines.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + (text.substr(end, 2) == "\r\n" ? 2 : 1));
  }
  return lines;
}

int json_depth(std::string_view json) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    in_string = c == '"';
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  return deepest;
}

std::optional<int64_t> to_integer(std::string_view text) {
  if (const auto value = whole<int64_t>(text)) return value;
  const auto number = to_number(text);
  // beyond 2^53 a double does not hold every integer
  if (!number || *number != std::floor(*number) || std::abs(*number) > 9007199254740992.0)
    return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::optional<uint64_t> to_unsigned(std::string_view text) {
  if (const auto value = whole<uint64_t>(text)) return value;
  const auto value = to_integer(text);
  return value && *value >= 0 ? std::optional<uint64_t>(static_cast<uint64_t>(*value)) : std::nullopt;
}

std::optional<double> to_number(std::string_view text) {
  const auto value = whole<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
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

}  // namespace atelier
