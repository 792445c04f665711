// The transparency of a picture, which decode() drops.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace atelier::media {

struct Opacity {
  int width = 0, height = 0;
  std::vector<uint8_t> values;  // [height, width], 0 to 255; empty: the file has no such channel
};

// How opaque each pixel of a PNG or WebP is, as it is stored; opacity_upright() of media/input.h turns it.
// Throws as decode() does.
Opacity opacity(std::string_view bytes);

}  // namespace atelier::media
