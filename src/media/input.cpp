#include "media/input.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "media/codecs.h"
#include "media/exif.h"

namespace atelier::media {
namespace fs = std::filesystem;
namespace {

// How the columns and rows of a picture are read to see it upright. Exif 2.3, 4.6.4: orientation 1 to 8.
struct Turn {
  bool exchanged, from_right, from_below;  // rows and columns; which end the picture's own axes begin at
};

constexpr std::array<Turn, 9> kTurns{{{},
                                      {false, false, false},
                                      {false, true, false},
                                      {false, true, true},
                                      {false, false, true},
                                      {true, false, false},
                                      {true, false, true},
                                      {true, true, true},
                                      {true, true, false}}};

// values: [height, width, channels]; sizes become those of the picture as it stands upright.
std::vector<uint8_t> turned(const std::vector<uint8_t>& values, int& width, int& height, size_t channels,
                            Turn t) {
  const int old_width = width, old_height = height;
  if (t.exchanged) std::swap(width, height);
  std::vector<uint8_t> out(values.size());
  size_t to = 0;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const int col = t.exchanged ? y : x, row = t.exchanged ? x : y;
      const auto c = static_cast<size_t>(t.from_right ? old_width - 1 - col : col);
      const auto r = static_cast<size_t>(t.from_below ? old_height - 1 - row : row);
      const size_t from = channels * (r * static_cast<size_t>(old_width) + c);
      for (size_t k = 0; k < channels; ++k) out[to++] = values[from + k];
    }
  }
  return out;
}

// None: it stands as it is stored.
std::optional<Turn> turn_of(std::string_view bytes) {
  const int orientation = orientation_of(exif_of(bytes));
  return orientation > 1 ? std::optional(kTurns[static_cast<size_t>(orientation)]) : std::nullopt;
}

}  // namespace

std::string read_picture_file(const fs::path& file) {
  std::error_code error;
  const std::string name = file.string();
  const bool is_address = std::any_of(
      file.begin(), file.end(), [](const fs::path& part) { return part == "https:" || part == "http:"; });
  if (is_address && !fs::exists(file, error))
    throw Error(Kind::kUsage,
                str("pictures are files, and an address was given (", name, "): fetch it first"));
  if (name.empty()) throw Error(Kind::kUsage, "a picture was asked for by an empty name");
  if (!fs::exists(file, error)) throw Error(Kind::kUsage, str("there is no picture ", name));
  // A FIFO or a device would block or never end.
  if (!fs::is_regular_file(file, error))
    throw Error(Kind::kUsage, str(file.string(), " is not a file; a picture is needed"));
  if (const auto size = fs::file_size(file, error); !error && size > static_cast<uintmax_t>(kMaxFileBytes))
    throw Error(Kind::kUsage, str(file.string(), " has ", size >> 20, " MiB; input pictures have at most ",
                                  kMaxFileBytes >> 20));
  return read_file(file);
}

Image decode_upright(std::string_view bytes) {
  Image picture = decode(bytes);
  if (const auto turn = turn_of(bytes))
    picture.rgb = turned(picture.rgb, picture.width, picture.height, 3, *turn);
  return picture;
}

Opacity opacity_upright(std::string_view bytes) {
  Opacity found = opacity(bytes);
  if (const auto turn = turn_of(bytes); turn && !found.values.empty())
    found.values = turned(found.values, found.width, found.height, 1, *turn);
  return found;
}

std::vector<uint8_t> binary(const Image& picture) {
  constexpr uint32_t kHalf = 128;
  std::vector<uint8_t> out(picture.rgb.size() / 3);
  for (size_t i = 0; i < out.size(); ++i) {
    const uint8_t* p = &picture.rgb[3 * i];
    const uint32_t grey = (p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16;
    out[i] = grey >= kHalf;
  }
  return out;
}

}  // namespace atelier::media
