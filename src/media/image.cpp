// Chooses the codec.
#include "media/image.h"

#include <algorithm>
#include <cctype>

#include "base/check.h"
#include "base/error.h"
#include "base/files.h"
#include "media/codecs.h"
#include "media/limits.h"
#include "media/texts.h"
#include "media/video.h"

namespace atelier::media {
namespace {

std::optional<Format> sniff(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return Format::kPng;
  if (bytes.starts_with("\xFF\xD8\xFF")) return Format::kJpeg;
  if (bytes.starts_with("GIF87a") || bytes.starts_with("GIF89a")) return Format::kGif;
  if (is_mp4(bytes)) return Format::kMp4;
  if (bytes.starts_with("RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") return Format::kWebp;
  return std::nullopt;
}

}  // namespace

std::optional<Format> format_of(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  std::string end(name.substr(dot));
  std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return std::tolower(c); });
  if (end == ".png") return Format::kPng;
  if (end == ".jpg" || end == ".jpeg") return Format::kJpeg;
  if (end == ".webp") return Format::kWebp;
  if (end == ".gif") return Format::kGif;
  if (end == ".mp4") return Format::kMp4;
  if (end == ".frames") return Format::kFrames;
  return std::nullopt;
}

std::string_view suffix(Format format) {
  switch (format) {
    case Format::kPng:
      return ".png";
    case Format::kJpeg:
      return ".jpg";
    case Format::kWebp:
      return ".webp";
    case Format::kGif:
      return ".gif";
    case Format::kMp4:
      return ".mp4";
    case Format::kFrames:
      return ".frames";
  }
  return "";
}

void check_size(int64_t width, int64_t height, std::string_view format) {
  if (width >= 1 && height >= 1 && width <= kMaxPixels / height) return;
  throw Error(Kind::kUsage, str("this ", format, " says it is ", width, " x ", height,
                                " pixels; pictures of 1 to ", kMaxPixels, " pixels are read"));
}

std::string_view exif_of(std::string_view bytes) {
  const auto format = sniff(bytes);
  if (!format) return {};
  switch (*format) {
    case Format::kPng:
      return exif_of_png(bytes);
    case Format::kJpeg:
      return exif_of_jpeg(bytes);
    case Format::kWebp:
      return exif_of_webp(bytes);
    default:
      return {};
  }
}

void damaged(std::string_view format, std::string_view why) {
  throw Error(Kind::kUsage, str("this ", format, " is damaged or cut off: ", why));
}

std::string size_problem(Format format, int64_t width, int64_t height) {
  const int64_t limit = format == Format::kJpeg                             ? 65500
                        : format == Format::kWebp || format == Format::kMp4 ? 16383
                        : format == Format::kGif                            ? 65535
                                                                            : 1000000;
  if (width <= limit && height <= limit) return {};
  return str(width, " x ", height, " does not fit into a ", suffix(format).substr(1),
             " file, whose sides are at most ", limit, "; write ",
             format == Format::kJpeg || format == Format::kWebp ? ".png" : "a folder of .frames", " instead");
}

std::string encode(const Image& picture, Format format, int quality, const Metadata& metadata) {
  ENSURE(picture.width > 0 && picture.height > 0);
  ENSURE(picture.rgb.size() ==
         size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height));
  if (const auto problem = size_problem(format, picture.width, picture.height); !problem.empty())
    throw Error(Kind::kItem, problem);
  const int q = usual_quality(quality);
  const Texts texts = texts_of(metadata, format);
  switch (format) {
    case Format::kPng:
      return encode_png(picture, texts);
    case Format::kJpeg:
      return encode_jpeg(picture, q, texts);
    case Format::kWebp:
      return encode_webp(picture, q, texts);
    default:
      return encode(Video{{picture}, 1}, format, quality, metadata);
  }
}

std::string encode(const Artifact& artifact, Format format, int quality, const Metadata& metadata) {
  if (const auto* picture = std::get_if<Image>(&artifact)) return encode(*picture, format, quality, metadata);
  return encode(std::get<Video>(artifact), format, quality, metadata);
}

Image decode(std::string_view bytes) {
  const auto format = sniff(bytes);
  if (format == Format::kPng) return decode_png(bytes);
  if (format == Format::kJpeg) return decode_jpeg(bytes);
  if (format == Format::kWebp) return decode_webp(bytes);
  throw Error(Kind::kUsage, "this is not a picture that can be read: PNG, JPEG and WebP are");
}

std::optional<Metadata> read_metadata(std::string_view bytes) {
  const auto format = sniff(bytes);
  if (!format) return std::nullopt;
  const auto texts = *format == Format::kPng    ? texts_of_png(bytes)
                     : *format == Format::kJpeg ? texts_of_jpeg(bytes)
                     : *format == Format::kWebp ? texts_of_webp(bytes)
                     : *format == Format::kGif  ? texts_of_gif(bytes)
                                                : texts_of_mp4(bytes);
  if (!texts) return std::nullopt;
  return metadata_of(*texts);
}

bool is_whole(std::string_view bytes) {
  const auto format = sniff(bytes);
  if (!format) return false;
  switch (*format) {
    case Format::kPng:
      return is_complete_png(bytes);
    case Format::kJpeg:
      return is_complete_jpeg(bytes);
    case Format::kWebp:
      return is_complete_webp(bytes);
    case Format::kGif:
      return is_complete_gif(bytes);
    default:
      return is_complete_mp4(bytes);
  }
}

bool is_complete(const std::filesystem::path& file) {
  std::error_code error;
  // a FIFO or a device would block or never end
  if (!std::filesystem::is_regular_file(file, error)) return false;
  try {
    return is_whole(read_file(file));
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace atelier::media
