// Trimming, UTF-8, lines and numbers.
#include "jobs/text.h"

#include <charconv>
#include <cmath>

namespace atelier::jobs {
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

}  // namespace atelier::jobs
