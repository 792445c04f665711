#include "text/html.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>

#include "text/html_references.h"
#include "text/unicode.h"

namespace atelier::text {
namespace {

constexpr size_t kLongestName = 32;  // characters
constexpr char32_t kReplacement = 0xfffd;

struct NamedReference {
  std::string text;
  bool needs_semicolon = true;
};

std::map<std::string_view, NamedReference> read_references() {
  std::map<std::string_view, NamedReference> all;
  for (std::string_view rest = kNamedReferences; !rest.empty();) {
    const auto entry = rest.substr(0, rest.find(' '));
    rest.remove_prefix(entry.size() + 1);
    const size_t equals = entry.find('=');
    auto name = entry.substr(0, equals);
    NamedReference made;
    if (name.ends_with('?')) {
      made.needs_semicolon = false;
      name.remove_suffix(1);
    }
    for (auto points = entry.substr(equals + 1); !points.empty();) {
      const auto hex = points.substr(0, points.find('+'));
      points.remove_prefix(std::min(points.size(), hex.size() + 1));
      append_char(made.text, static_cast<char32_t>(std::stoul(std::string(hex), nullptr, 16)));
    }
    all.emplace(name, std::move(made));
  }
  return all;
}

// What "&name" or "&name;" stands for; null: nothing.
const std::string* find_named(std::string_view name) {
  static const auto all = read_references();
  const bool has_semicolon = name.ends_with(';');
  if (has_semicolon) name.remove_suffix(1);
  const auto found = all.find(name);
  return found == all.end() || (found->second.needs_semicolon && !has_semicolon) ? nullptr
                                                                                 : &found->second.text;
}

// Numbers from 0x80 to 0x9f mean what Windows' code page 1252 has there.
constexpr std::array<char16_t, 32> kWindows1252{
    0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
    0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};

bool is_left_out(char32_t c) {
  const bool is_control = (c >= 0x1 && c <= 0x8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f;
  const bool is_no_character = (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
  return is_control || is_no_character;
}

// Of "#38" or "#x26".
std::string of_number(std::string_view digits, bool is_hex) {
  uint64_t n = 0;
  for (const char c : digits) {
    const auto digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    n = std::min<uint64_t>(n * (is_hex ? 16 : 10) + static_cast<uint64_t>(digit), 0x110000);
  }
  auto c = static_cast<char32_t>(n);
  if (c >= 0x80 && c <= 0x9f) {
    c = kWindows1252[c - 0x80];
  } else if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
    c = kReplacement;
  } else if (is_left_out(c)) {
    return {};
  }
  std::string out;
  append_char(out, c);
  return out;
}

struct Replaced {
  size_t length = 0;  // of the reference behind '&'
  std::string text;
};

std::optional<Replaced> numeric_reference(std::string_view rest) {
  const bool is_hex = rest.size() > 1 && (rest[1] | 0x20) == 'x';
  const size_t first = is_hex ? 2 : 1;
  const auto digits = is_hex ? "0123456789abcdefABCDEF" : "0123456789";
  const size_t end = std::min(rest.find_first_not_of(digits, first), rest.size());
  if (end <= first) return std::nullopt;
  const bool has_semicolon = end < rest.size() && rest[end] == ';';
  return Replaced{end + (has_semicolon ? 1 : 0), of_number(rest.substr(first, end - first), is_hex)};
}

std::optional<Replaced> named_reference(std::string_view rest) {
  constexpr std::string_view kEnds = "\t\n\f <&#;";
  size_t end = 0;
  for (size_t n = 0; n < kLongestName && end < rest.size() && kEnds.find(rest[end]) == kEnds.npos; ++n)
    end += char_length(rest[end]);
  if (end == 0) return std::nullopt;
  const bool has_semicolon = end < rest.size() && rest[end] == ';';
  if (const auto* text = find_named(rest.substr(0, end + (has_semicolon ? 1 : 0))))
    return Replaced{end + (has_semicolon ? 1 : 0), *text};
  // Names of two letters are the shortest.
  for (size_t n = end; n > 1; --n) {
    if (const auto* text = find_named(rest.substr(0, n))) return Replaced{n, *text};
  }
  return std::nullopt;
}

}  // namespace

std::string html_unescaped(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto rest = text.substr(at + 1);
    std::optional<Replaced> found;
    if (text[at] == '&' && !rest.empty())
      found = rest.front() == '#' ? numeric_reference(rest) : named_reference(rest);
    out += found ? found->text : std::string(1, text[at]);
    at += 1 + (found ? found->length : 0);
  }
  return out;
}

}  // namespace atelier::text
