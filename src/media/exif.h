// The EXIF block that JPEG and WebP share: UserComment holds the parameters, ImageDescription the JSON.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "media/codecs.h"

namespace atelier::media {

// A TIFF structure in big-endian order, without the "Exif\0\0" that JPEG puts before it. [Exif 2.3, 4.6]
std::string write_exif(const Texts& texts);
// Both byte orders, with or without "Exif\0\0"; none if neither text is there. Every offset is checked.
std::optional<Texts> read_exif(std::string_view block);
// 1 to 8; 1 (upright) where the block does not say, or is damaged.
int orientation_of(std::string_view block);

// The longest prefix of at most `bytes` bytes that ends between two code points, with "..." in place of what
// is cut.
std::string cut_text(std::string_view text, size_t bytes);

}  // namespace atelier::media
