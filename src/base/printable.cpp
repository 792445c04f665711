#include "base/printable.h"

#include <cstdint>

#include "base/secrets.h"
#include "base/text.h"

namespace atelier {
namespace {

void put_escaped(std::string& out, std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
  }
}

// Bytes of the character that begins here; 1 for what is none.
size_t length_of(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  const size_t length = first < 0x80       ? 1
                        : first >> 5 == 6  ? 2
                        : first >> 4 == 14 ? 3
                        : first >> 3 == 30 ? 4
                                           : 1;
  return length <= text.size() && is_utf8(text.substr(0, length)) ? length : 1;
}

bool is_control(std::string_view character) {
  const auto first = static_cast<uint8_t>(character[0]);
  if (character.size() == 1) return (first < 0x20 && first != '\n' && first != '\t') || first >= 0x7F;
  return first == 0xC2 && static_cast<uint8_t>(character[1]) < 0xA0;  // C1
}

}  // namespace

std::string printable(std::string_view raw) {
  const std::string hidden = hide_secrets(raw);
  std::string_view text = hidden;
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view character = text.substr(0, length_of(text));
    if (is_control(character)) {
      put_escaped(out, character);
    } else {
      out += character;
    }
    text.remove_prefix(character.size());
  }
  return out;
}

}  // namespace atelier
