// Boxes of MP4 files: what generated ones say of themselves, and whether a file is whole. [ISO/IEC 14496-12]
#include <algorithm>

#include "media/video.h"

namespace atelier::media {
namespace {

uint64_t get_big(std::string_view at, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(at[i]);
  return value;
}

// The boxes of a file, or of a box, from the front.
class Boxes {
 public:
  explicit Boxes(std::string_view bytes) : rest_(bytes) {}
  bool next() {
    if (rest_.empty()) return false;
    if (rest_.size() < 8) return is_whole = false;
    uint64_t size = get_big(rest_, 4);
    size_t header = 8;
    if (size == 1) {
      if (rest_.size() < 16) return is_whole = false;
      size = get_big(rest_.substr(8), 8), header = 16;
    }
    if (size == 0) size = rest_.size();
    if (size < header || size > rest_.size()) return is_whole = false;
    type = rest_.substr(4, 4);
    data = rest_.substr(header, static_cast<size_t>(size) - header);
    rest_.remove_prefix(static_cast<size_t>(size));
    return true;
  }
  bool is_whole = true;  // so far
  std::string_view type, data;

 private:
  std::string_view rest_;
};

// What is in the first box of this type.
std::optional<std::string_view> inside(std::string_view bytes, std::string_view type) {
  for (Boxes b(bytes); b.next();) {
    if (b.type == type) return b.data;
  }
  return std::nullopt;
}

// Of a tag of the list: a data box, whose text begins behind its kind and its language.
std::string tag_of(std::string_view list, std::string_view type) {
  const auto tag = inside(list, type);
  const auto data = tag ? inside(*tag, "data") : std::nullopt;
  return data && data->size() >= 8 ? std::string(data->substr(8)) : std::string();
}

}  // namespace

bool is_mp4(std::string_view bytes) {
  return bytes.size() >= 8 && bytes.substr(4, 4) == "ftyp";
}

std::optional<Texts> texts_of_mp4(std::string_view bytes) {
  auto at = inside(bytes, "moov");
  if (at) at = inside(*at, "udta");
  if (at) at = inside(*at, "meta");
  if (!at || at->size() < 4) return std::nullopt;
  at = inside(at->substr(4), "ilst");  // behind its version
  if (!at) return std::nullopt;
  Texts texts{tag_of(*at,
                     "\xa9"
                     "cmt"),
              tag_of(*at, "desc")};
  if (texts.parameters.empty() && texts.json.empty()) return std::nullopt;
  return texts;
}

bool is_complete_mp4(std::string_view bytes) {
  bool has_index = false, has_data = false;
  Boxes b(bytes);
  while (b.next()) {
    has_index = has_index || b.type == "moov";
    has_data = has_data || (b.type == "mdat" && !b.data.empty());
  }
  return is_mp4(bytes) && b.is_whole && has_index && has_data;
}

}  // namespace atelier::media
