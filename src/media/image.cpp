// Chooses the codec, and turns metadata into the two texts that every format stores.
#include "media/image.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/files.h"
#include "media/codecs.h"
#include "media/exif.h"
#include "media/limits.h"

namespace atelier::media {
namespace {

std::optional<Format> sniff(std::string_view bytes) {
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return Format::kPng;
  if (bytes.starts_with("\xFF\xD8\xFF")) return Format::kJpeg;
  if (bytes.starts_with("RIFF") && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") return Format::kWebp;
  return std::nullopt;
}

std::string values_as_json(const Metadata& metadata) {
  if (metadata.values.empty()) return {};
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [key, value] : metadata.values) object[key] = value;
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// JSON whose longest texts are cut until it fits: a JPEG's EXIF is at most 64 KiB.
std::string values_as_json(const Metadata& metadata, size_t bytes) {
  std::string json = values_as_json(metadata);
  Metadata shorter = metadata;
  for (size_t limit = bytes / 2; json.size() > bytes && limit >= 8; limit /= 2) {
    for (auto& [key, value] : shorter.values) value = cut_text(value, limit);
    json = values_as_json(shorter);
  }
  return json.size() <= bytes ? json : R"({"truncated":"yes"})";
}

// Cut before its last line, where seed and size stand: a prompt may be long.
std::string cut_parameters(const std::string& text, size_t bytes) {
  const size_t line = text.rfind('\n');
  const size_t end = line == std::string::npos ? 0 : text.size() - line;
  if (text.size() <= bytes || end == 0 || end >= bytes) return cut_text(text, bytes);
  return cut_text(std::string_view(text).substr(0, line), bytes - end) + text.substr(line);
}

Texts texts_of(const Metadata& metadata, Format format) {
  Texts texts{metadata.parameters, values_as_json(metadata)};
  if (format == Format::kJpeg) {
    // UTF-16 takes at most twice the bytes of UTF-8
    texts.parameters = cut_parameters(texts.parameters, kJpegTextBytes / 2);
    texts.json = values_as_json(metadata, kJpegTextBytes);
  }
  // the formats end a text at a NUL
  std::erase(texts.parameters, '\0');
  return texts;
}

Metadata metadata_of(const Texts& texts) {
  Metadata metadata{texts.parameters, {}};
  const auto object = nlohmann::ordered_json::parse(texts.json, nullptr, false);
  if (!object.is_object()) return metadata;
  for (const auto& [key, value] : object.items()) {
    // nothing of ours nests, and a dump of a hostile nest would recurse without bound
    if (value.is_structured()) continue;
    metadata.values.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return metadata;
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
  return std::nullopt;
}

std::string_view suffix(Format format) {
  return format == Format::kPng ? ".png" : format == Format::kJpeg ? ".jpg" : ".webp";
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
  }
  return {};
}

void damaged(std::string_view format, std::string_view why) {
  throw Error(Kind::kUsage, str("this ", format, " is damaged or cut off: ", why));
}

std::string size_problem(Format format, int64_t width, int64_t height) {
  const int64_t limit = format == Format::kJpeg ? 65500 : format == Format::kWebp ? 16383 : 1000000;
  if (width <= limit && height <= limit) return {};
  return str(width, " x ", height, " does not fit into a ", suffix(format).substr(1),
             " file, whose sides are at most ", limit, "; write .png instead");
}

std::string encode(const Image& picture, Format format, int quality, const Metadata& metadata) {
  ENSURE(picture.width > 0 && picture.height > 0);
  ENSURE(picture.rgb.size() ==
         size_t{3} * static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height));
  if (const auto problem = size_problem(format, picture.width, picture.height); !problem.empty())
    throw Error(Kind::kItem, problem);
  const int q = quality < 1 ? 95 : std::min(quality, 100);
  const Texts texts = texts_of(metadata, format);
  switch (format) {
    case Format::kPng:
      return encode_png(picture, texts);
    case Format::kJpeg:
      return encode_jpeg(picture, q, texts);
    case Format::kWebp:
      return encode_webp(picture, q, texts);
  }
  return {};
}

std::string encode(const Artifact& artifact, Format format, int quality, const Metadata& metadata) {
  if (const auto* picture = std::get_if<Image>(&artifact)) return encode(*picture, format, quality, metadata);
  throw Error(Kind::kUsage, "no file format of this build holds a video");
}

Image decode(std::string_view bytes) {
  const auto format = sniff(bytes);
  if (!format) throw Error(Kind::kUsage, "this is not a picture that can be read: PNG, JPEG and WebP are");
  switch (*format) {
    case Format::kPng:
      return decode_png(bytes);
    case Format::kJpeg:
      return decode_jpeg(bytes);
    case Format::kWebp:
      return decode_webp(bytes);
  }
  return {};
}

std::optional<Metadata> read_metadata(std::string_view bytes) {
  const auto format = sniff(bytes);
  if (!format) return std::nullopt;
  const auto texts = *format == Format::kPng    ? texts_of_png(bytes)
                     : *format == Format::kJpeg ? texts_of_jpeg(bytes)
                                                : texts_of_webp(bytes);
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
  }
  return false;
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
