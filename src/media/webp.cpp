// Still WebP pictures by libwebp; the extended container around its output, which holds the EXIF,
// is written here.
#include <webp/decode.h>
#include <webp/encode.h>

#include "base/error.h"
#include "media/codecs.h"
#include "media/exif.h"
#include "media/riff.h"

namespace atelier::media {
namespace {

// "RIFF" <size> "WEBP" <picture chunk>  ->  the same with a VP8X chunk in front and an EXIF chunk behind.
std::string with_exif(std::string_view simple, const Image& picture, const std::string& exif) {
  return riff_chunk("RIFF", "WEBP" + extended_header(kExifFlag, picture.width, picture.height) +
                                std::string(simple.substr(kRiffHeader)) + riff_chunk("EXIF", exif));
}

}  // namespace

std::string encode_plain_webp(const Image& picture, int quality, int effort) {
  const bool is_lossless = quality >= 100;
  WebPConfig config;
  WebPPicture frame;
  if (!WebPConfigInit(&config) || !WebPPictureInit(&frame)) {
    throw Error(Kind::kItem, "libwebp's headers and library are of different versions: reinstall it");
  }
  // speed first: level 1 of 9
  if (is_lossless) WebPConfigLosslessPreset(&config, 1);
  if (!is_lossless) config.quality = static_cast<float>(quality), config.method = effort;
  config.exact = 1;
  frame.use_argb = is_lossless;
  frame.width = picture.width;
  frame.height = picture.height;
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  frame.writer = WebPMemoryWrite;
  frame.custom_ptr = &writer;
  const bool ok =
      WebPPictureImportRGB(&frame, picture.rgb.data(), 3 * picture.width) && WebPEncode(&config, &frame);
  const int error = frame.error_code;
  WebPPictureFree(&frame);
  std::string simple(reinterpret_cast<const char*>(writer.mem), ok ? writer.size : 0);
  WebPMemoryWriterClear(&writer);
  if (!ok) throw Error(Kind::kItem, str("cannot write a WebP: libwebp's error ", error));
  return simple;
}

std::string encode_webp(const Image& picture, int quality, const Texts& texts) {
  std::string simple = encode_plain_webp(picture, quality, 4);
  if (texts.parameters.empty() && texts.json.empty()) return simple;
  return with_exif(simple, picture, write_exif(texts));
}

Image decode_webp(std::string_view bytes) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(raw(bytes), bytes.size(), &features) != VP8_STATUS_OK)
    damaged("WebP", "its header is not valid");
  if (features.has_animation)
    throw Error(Kind::kUsage, "this WebP is an animation; a still picture is needed");
  check_size(features.width, features.height, "WebP");
  Image picture{features.width, features.height, {}};
  picture.rgb.resize(size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height));
  if (!WebPDecodeRGBInto(raw(bytes), bytes.size(), picture.rgb.data(), picture.rgb.size(),
                         3 * picture.width)) {
    damaged("WebP", "its picture data is not whole");
  }
  return picture;
}

std::string_view exif_of_webp(std::string_view bytes) {
  for (RiffChunks c(bytes); c.next();) {
    if (c.type == "EXIF") return c.data;
  }
  return {};
}

std::optional<Texts> texts_of_webp(std::string_view bytes) {
  return read_exif(exif_of_webp(bytes));
}

bool is_complete_webp(std::string_view bytes) {
  bool has_picture = false;
  RiffChunks c(bytes);
  while (c.next()) has_picture = has_picture || c.type == "VP8 " || c.type == "VP8L" || c.type == "ANMF";
  return c.is_whole && has_picture && WebPGetInfo(raw(bytes), bytes.size(), nullptr, nullptr) != 0;
}

}  // namespace atelier::media
