// Pictures in and out: 8-bit RGB to and from PNG, JPEG and WebP, with the generation parameters inside the
// file. Videos are in video.h.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"

namespace atelier::media {

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // [height, width, 3], row-major
};

struct Video {
  std::vector<Image> frames;  // of one size
  double fps = 0;
};

// What a model makes of one request.
using Artifact = std::variant<Image, Video>;

struct Metadata {
  std::string parameters;                                   // for people: the text other tools show and paste
  std::vector<std::pair<std::string, std::string>> values;  // for programs, in this order; keys are distinct
};

enum class Format {
  kPng,
  kJpeg,
  kWebp,  // also moving
  kGif,
  kMp4,
  kFrames,  // a folder of pictures
};

inline constexpr int kDefaultQuality = -1;        // JPEG and WebP: 95
inline constexpr int64_t kMaxPixels = 1LL << 27;  // decode refuses more before it allocates
inline constexpr int kJpegTextBytes = 30000;      // longer texts are cut in a JPEG, whose EXIF holds 64 KiB

// The format that a name asks for: .png, .jpg, .jpeg, .webp, .gif, .mp4, .frames in any case; none
// for anything else.
std::optional<Format> format_of(std::string_view name);
// ".png", ".jpg", ...
std::string_view suffix(Format format);

// The bytes of a file. quality 1..100; PNG ignores it, WebP is lossless at 100. Throws Error(kItem) for a
// size that the format cannot hold, Error(kItem) when the encoder fails. In a format of videos: of one frame.
std::string encode(const Image& picture, Format format, int quality = kDefaultQuality,
                   const Metadata& metadata = {});
// The same for any artifact; throws Error(kUsage) for a video in a format that holds one picture, and for a
// folder of frames, which is no file.
std::string encode(const Artifact& artifact, Format format, int quality, const Metadata& metadata);
// Reads PNG, JPEG and WebP by their first bytes. Grey, palette, 16-bit and CMYK become 8-bit RGB; alpha is
// dropped. Throws Error(kUsage) for anything unknown, truncated, damaged or larger than kMaxPixels.
Image decode(std::string_view bytes);
// What encode() stored, or another tool in the same places; none if there is nothing or the file is damaged.
std::optional<Metadata> read_metadata(std::string_view bytes);
// Whether the file is a whole picture or video: its structure to the last byte, for PNG every checksum
// too. Never throws.
bool is_complete(const std::filesystem::path& file);
bool is_whole(std::string_view bytes);

// Metadata of a generated picture from request::look(): a text as A1111 writes it, and every key as a value.
Metadata describe(const Json& look);

}  // namespace atelier::media
