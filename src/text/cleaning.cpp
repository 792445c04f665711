#include "text/cleaning.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <vector>

#include "text/html.h"
#include "text/unicode.h"

namespace atelier::text {
namespace {

constexpr char32_t kCapitalSigma = 0x3a3, kFinalSigma = 0x3c2;

bool is_cased(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASED);
}
bool is_case_ignorable(char32_t c) {
  return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_CASE_IGNORABLE);
}

// Unicode's Final_Sigma: a cased letter before, none after, whatever is ignorable left out.
bool ends_word(const std::vector<char32_t>& all, size_t at) {
  const auto counts = [](char32_t c) { return !is_case_ignorable(c); };
  const auto here = all.begin() + static_cast<std::ptrdiff_t>(at);
  const auto before = std::find_if(std::make_reverse_iterator(here), all.rend(), counts);
  const auto after = std::find_if(here + 1, all.end(), counts);
  return before != all.rend() && is_cased(*before) && (after == all.end() || !is_cased(*after));
}

}  // namespace

std::string lower_stripped(std::string_view text) {
  const std::string clean = valid_utf8(text);
  std::vector<char32_t> all;
  for (size_t at = 0; at < clean.size();) all.push_back(next_char(clean, at));
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] == kCapitalSigma && ends_word(all, i)) all[i] = kFinalSigma;
  }
  std::string chosen;
  for (const char32_t c : all) append_char(chosen, c);
  const std::string lowered = lower_cased(chosen);
  return std::string(strip_left(strip_right(lowered, is_python_space), is_python_space));
}

std::string unescaped(std::string_view text) {
  const std::string plain = html_unescaped(html_unescaped(valid_utf8(text)));
  std::string out;
  for (size_t at = 0; at < plain.size();) {
    const char32_t c = next_char(plain, at);
    if (!is_python_space(c)) {
      append_char(out, c);
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  return std::string(strip_right(out, is_python_space));
}

}  // namespace atelier::text
