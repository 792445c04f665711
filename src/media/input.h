// Pictures that a request begins with, as diffusers' load_image and VaeImageProcessor read them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "media/alpha.h"
#include "media/image.h"

namespace atelier::media {

inline constexpr int64_t kMaxFileBytes = 1LL << 29;  // of an input picture; more is refused before it is read

// The bytes of a picture's file. Throws Error(kUsage) naming the file where it is missing, no plain file, or
// larger than kMaxFileBytes.
std::string read_picture_file(const std::filesystem::path& file);

// As decode(), turned as the file's EXIF block says (PIL.ImageOps.exif_transpose). Alpha is dropped, as
// PIL's convert("RGB") drops it.
Image decode_upright(std::string_view bytes);
// As opacity(), turned as decode_upright() turns the colours.
Opacity opacity_upright(std::string_view bytes);

// Whether each pixel's grey (ITU-R 601-2 luma, as PIL's convert("L") rounds it) is at least a half: [height,
// width], 0 or 1.
std::vector<uint8_t> binary(const Image& picture);

}  // namespace atelier::media
