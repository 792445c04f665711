// Darts-clone's unit layout: bit 31 marks a value, bits 0-7 the label, bit 8 a value below, bit 9 a wide
// offset.
#include "text/charsmap.h"

#include <bit>
#include <cstring>
#include <stdexcept>

namespace atelier::text {
namespace {

static_assert(std::endian::native == std::endian::little);

uint32_t offset_of(uint32_t unit) {
  return (unit >> 10) << ((unit & (1U << 9)) >> 6);
}
uint32_t label_of(uint32_t unit) {
  return unit & ((1U << 31) | 0xffU);
}
bool has_value(uint32_t unit) {
  return ((unit >> 8) & 1U) != 0;
}
uint32_t value_of(uint32_t unit) {
  return unit & ((1U << 31) - 1);
}

}  // namespace

Charsmap::Charsmap(std::string_view blob) {
  if (blob.empty()) return;
  uint32_t bytes = 0;
  if (blob.size() < sizeof bytes) throw std::invalid_argument("the precompiled character map is cut short");
  std::memcpy(&bytes, blob.data(), sizeof bytes);
  blob.remove_prefix(sizeof bytes);
  if (bytes > blob.size() || bytes == 0 || bytes % sizeof(uint32_t) != 0) {
    throw std::invalid_argument("the precompiled character map has a wrong size");
  }
  units_.resize(bytes / sizeof(uint32_t));
  std::memcpy(units_.data(), blob.data(), bytes);
  replacements_ = blob.substr(bytes);
}

std::optional<Charsmap::Rule> Charsmap::find(std::string_view text, bool stop_at_first) const {
  std::optional<Rule> best;
  if (units_.empty()) return best;
  uint32_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size()) return best;  // only in a malformed map
    const uint32_t unit = units_[node];
    if (label_of(unit) != byte) return best;
    node ^= offset_of(unit);
    if (!has_value(unit)) continue;
    if (node >= units_.size()) return best;
    const uint32_t at = value_of(units_[node]);
    if (at > replacements_.size()) return best;
    const size_t end = std::min(replacements_.find('\0', at), replacements_.size());
    best = Rule{i + 1, std::string_view(replacements_).substr(at, end - at)};
    if (stop_at_first) return best;
  }
  return best;
}

}  // namespace atelier::text
