// The transparency of a picture, which decode() drops.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "media/image.h"

namespace atelier::media {

// How opaque each pixel is, [height, width], 0 to 255, of a PNG or WebP; empty where the file has no such
// channel. Throws as decode() does.
std::vector<uint8_t> opacity(std::string_view bytes);

}  // namespace atelier::media
