#include "base/quote.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "base/error.h"
#include "base/printable.h"

namespace atelier {

std::string in_quotes(std::string_view text) {
  constexpr size_t kLongest = 160;
  std::string out = "\"";
  for (const char c : text.substr(0, kLongest)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  // A multi-byte character may have been cut in two.
  if (text.size() > kLongest) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0x80) != 0) out.pop_back();
    out += "...";
  }
  return out + '"';
}

std::string shell_word(std::string_view text) {
  const auto is_plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./,:=+@%").find(c) != std::string_view::npos;
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return std::string(text);
  std::string out = "'";
  if (printable(text) == text) {
    for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  } else {
    for (const char c : text) out += c == '\'' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
    out = "$" + printable(out);
  }
  return out + "'";
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

std::string size_text(int64_t bytes) {
  constexpr std::array<const char*, 4> kUnits{"kB", "MB", "GB", "TB"};
  if (bytes < 1000) return str(bytes, " bytes");
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) value /= 1000, ++unit;
  return str(std::round(value * 10) / 10, " ", kUnits[unit]);
}

std::string list_text(std::span<const std::string> items, size_t most) {
  std::string out;
  for (size_t i = 0; i < std::min(most, items.size()); ++i) out += (i ? ", " : "") + items[i];
  if (items.size() > most) out += str(" and ", items.size() - most, " more");
  return out;
}

}  // namespace atelier
