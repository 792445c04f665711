// What each file format offers to image.cpp. Formats check declared sizes with check_size before they
// allocate.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "media/image.h"

namespace atelier::media {

// The two texts as they stand in a file: Metadata::parameters, and its values as one JSON object.
struct Texts {
  std::string parameters, json;
};

// Throws Error(kUsage) unless 1 <= width * height <= kMaxPixels.
void check_size(int64_t width, int64_t height, std::string_view format);
// The EXIF block of a file of any format; empty: none.
std::string_view exif_of(std::string_view bytes);
[[noreturn]] void damaged(std::string_view format, std::string_view why);

// PNG: text chunks "parameters" and "atelier".
std::string encode_png(const Image& picture, const Texts& texts);
Image decode_png(std::string_view bytes);
std::optional<Texts> texts_of_png(std::string_view bytes);
std::string_view exif_of_png(std::string_view bytes);  // the block; empty: none
bool is_complete_png(std::string_view bytes);

// JPEG: an EXIF segment.
std::string encode_jpeg(const Image& picture, int quality, const Texts& texts);
Image decode_jpeg(std::string_view bytes);
std::optional<Texts> texts_of_jpeg(std::string_view bytes);
std::string_view exif_of_jpeg(std::string_view bytes);
bool is_complete_jpeg(std::string_view bytes);

// WebP: an EXIF chunk of the extended container.
// Without texts. effort: 0 (fast) to 6 of a lossy one.
std::string encode_plain_webp(const Image& picture, int quality, int effort);
std::string encode_webp(const Image& picture, int quality, const Texts& texts);
Image decode_webp(std::string_view bytes);
std::optional<Texts> texts_of_webp(std::string_view bytes);
std::string_view exif_of_webp(std::string_view bytes);
bool is_complete_webp(std::string_view bytes);

}  // namespace atelier::media
