#include "media/alpha.h"

#include <png.h>
#include <webp/decode.h>

#include "base/error.h"
#include "media/codecs.h"
#include "media/riff.h"

namespace atelier::media {
namespace {

// Every fourth byte.
std::vector<uint8_t> last_of_four(const std::vector<uint8_t>& rgba) {
  std::vector<uint8_t> out(rgba.size() / 4);
  for (size_t i = 0; i < out.size(); ++i) out[i] = rgba[4 * i + 3];
  return out;
}

Opacity opacity_of_png(std::string_view bytes) {
  png_image picture{};
  picture.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&picture, bytes.data(), bytes.size()))
    damaged("PNG", picture.message);
  struct Free {
    png_image* picture;
    ~Free() { png_image_free(picture); }
  } const free{&picture};
  check_size(picture.width, picture.height, "PNG");
  if (!(picture.format & PNG_FORMAT_FLAG_ALPHA)) return {};
  picture.format = PNG_FORMAT_RGBA;
  std::vector<uint8_t> rgba(PNG_IMAGE_SIZE(picture));
  if (!png_image_finish_read(&picture, nullptr, rgba.data(), 0, nullptr)) damaged("PNG", picture.message);
  return {static_cast<int>(picture.width), static_cast<int>(picture.height), last_of_four(rgba)};
}

Opacity opacity_of_webp(std::string_view bytes) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(raw(bytes), bytes.size(), &features) != VP8_STATUS_OK)
    damaged("WebP", "its header is not valid");
  check_size(features.width, features.height, "WebP");
  if (!features.has_alpha) return {};
  std::vector<uint8_t> rgba(size_t{4} * static_cast<size_t>(features.width) *
                            static_cast<size_t>(features.height));
  if (!WebPDecodeRGBAInto(raw(bytes), bytes.size(), rgba.data(), rgba.size(), 4 * features.width))
    damaged("WebP", "its picture data is not whole");
  return {features.width, features.height, last_of_four(rgba)};
}

}  // namespace

Opacity opacity(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG")) return opacity_of_png(bytes);
  if (bytes.size() > 12 && bytes.starts_with("RIFF") && bytes.substr(8, 4) == "WEBP")
    return opacity_of_webp(bytes);
  return {};
}

}  // namespace atelier::media
