// WebP by libwebp; the extended container around its output, which holds the EXIF, is written here.
#include <webp/decode.h>
#include <webp/encode.h>

#include <algorithm>

#include "base/error.h"
#include "media/codecs.h"
#include "media/exif.h"

namespace atelier::media {
namespace {

constexpr size_t kRiffHeader = 12;
constexpr char kExifFlag = 0x08;

void put_little(std::string& out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

std::string chunk(std::string_view type, std::string_view data) {
  std::string out(type);
  put_little(out, static_cast<uint32_t>(data.size()), 4);
  out += data;
  if (data.size() % 2 != 0) out.push_back('\0');
  return out;
}

// "RIFF" <size> "WEBP" <picture chunk>  ->  the same with a VP8X chunk in front and an EXIF chunk behind.
std::string with_exif(std::string_view simple, const Image& picture, const std::string& exif) {
  std::string header(1, kExifFlag);
  put_little(header, 0, 3);
  put_little(header, static_cast<uint32_t>(picture.width - 1), 3);
  put_little(header, static_cast<uint32_t>(picture.height - 1), 3);
  const std::string body =
      "WEBP" + chunk("VP8X", header) + std::string(simple.substr(kRiffHeader)) + chunk("EXIF", exif);
  return chunk("RIFF", body);
}

// Walks the chunks of a file from the front.
class Chunks {
 public:
  explicit Chunks(std::string_view bytes) {
    if (bytes.size() < kRiffHeader) return;
    const size_t size = size_t{8} + u32(bytes.substr(4));
    is_whole = size <= bytes.size();
    rest_ = bytes.substr(kRiffHeader, size < kRiffHeader ? 0 : size - kRiffHeader);
  }
  bool next() {
    if (rest_.size() < 8) return false;
    const size_t size = u32(rest_.substr(4));
    if (size > rest_.size() - 8) return is_whole = false;
    type = rest_.substr(0, 4);
    data = rest_.substr(8, size);
    rest_.remove_prefix(std::min(rest_.size(), 8 + size + size % 2));
    return true;
  }
  bool is_whole = false;  // the file is as long as it and its chunks so far say
  std::string_view type, data;

 private:
  static uint32_t u32(std::string_view at) {
    uint32_t value = 0;
    for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(at[i]);
    return value;
  }
  std::string_view rest_;
};

const uint8_t* raw(std::string_view bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

}  // namespace

std::string encode_webp(const Image& picture, int quality, const Texts& texts) {
  const bool is_lossless = quality >= 100;
  WebPConfig config;
  WebPPicture frame;
  if (!WebPConfigInit(&config) || !WebPPictureInit(&frame)) {
    throw Error(Kind::kItem, "libwebp's headers and library are of different versions: reinstall it");
  }
  // speed first: level 1 of 9
  if (is_lossless) WebPConfigLosslessPreset(&config, 1);
  if (!is_lossless) config.quality = static_cast<float>(quality);
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
  for (Chunks c(bytes); c.next();) {
    if (c.type == "EXIF") return c.data;
  }
  return {};
}

std::optional<Texts> texts_of_webp(std::string_view bytes) {
  return read_exif(exif_of_webp(bytes));
}

bool is_complete_webp(std::string_view bytes) {
  bool has_picture = false;
  Chunks c(bytes);
  while (c.next()) has_picture = has_picture || c.type == "VP8 " || c.type == "VP8L" || c.type == "ANMF";
  return c.is_whole && has_picture && WebPGetInfo(raw(bytes), bytes.size(), nullptr, nullptr) != 0;
}

}  // namespace atelier::media
