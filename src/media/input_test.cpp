// Resampling against values that Pillow computed, pictures turned as EXIF says, masks, files that
// cannot be used.
#include "media/input.h"

#include <gtest/gtest.h>
#include <png.h>
#include <webp/encode.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>

#include "base/digest.h"
#include "base/error.h"
#include "base/scratch.h"
#include "media/exif.h"
#include "media/resample.h"

namespace atelier::media {
namespace {

Image sample(int width, int height) {
  Image p{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c)
        p.rgb.push_back(static_cast<uint8_t>(x * x * 7 + y * y * 13 + x * y * 5 + c * 31));
    }
  }
  return p;
}

std::string_view bytes_of(const Image& p) {
  return {reinterpret_cast<const char*>(p.rgb.data()), p.rgb.size()};
}

struct Resizing {
  int width, height, to_width, to_height;
  std::string digest;  // of what Pillow 13.0 makes of it
};

TEST(Resample, IsPillowsToTheBit) {
  const Resizing cases[] = {{13, 9, 4, 3, "96bbca5bf7e129da"},
                            {13, 9, 7, 11, "e250751168722486"},
                            {13, 9, 13, 5, "ed46c99c973c25dc"},
                            {13, 9, 40, 27, "a6198fef1bc1dba0"},
                            {1, 1, 3, 2, "65bd3ea9b6fa3c7a"},
                            {200, 150, 8, 8, "d93a98698b79a199"},
                            {64, 48, 31, 97, "fcb2e3da0b45237f"},
                            {5, 4, 5, 4, ""},
                            // the height comes first in some of these
                            {40, 90, 31, 20, "18d58679d98a255d"},
                            {20, 64, 33, 21, "6351eb55756bc8ea"},
                            {60, 61, 50, 40, "576628be77048b93"},
                            {90, 200, 53, 127, "4f3e37a925160ef1"},
                            {64, 64, 60, 57, "47837179d412d8f8"},
                            {64, 64, 60, 55, "bbf031dbe5aa1701"}};
  for (const auto& c : cases) {
    const Image in = sample(c.width, c.height), out = resized(in, c.to_width, c.to_height);
    EXPECT_EQ(out.width, c.to_width);
    EXPECT_EQ(out.height, c.to_height);
    EXPECT_EQ(sha256(bytes_of(out)).substr(0, 16),
              c.digest.empty() ? sha256(bytes_of(in)).substr(0, 16) : c.digest)
        << c.width << "x" << c.height << " to " << c.to_width << "x" << c.to_height;
  }
  EXPECT_EQ(resized(sample(13, 9), 4, 3).rgb[0], 0x35);
}

std::string little(uint32_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> 8 * i));
  return out;
}

std::string big(uint32_t value, int bytes) {
  std::string out = little(value, bytes);
  return {out.rbegin(), out.rend()};
}

// One folder with one entry, in both byte orders.
std::string exif_with(uint32_t orientation, bool is_big) {
  const auto n = is_big ? big : little;
  return std::string(is_big ? "MM" : "II") + n(42, 2) + n(8, 4) + n(1, 2) + n(0x0112, 2) + n(3, 2) + n(1, 4) +
         n(orientation, 2) + n(0, 2) + n(0, 4);
}

std::string png_with(std::string file, const std::string& exif) {
  const std::string body = "eXIf" + exif;
  const auto crc = static_cast<uint32_t>(
      ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size())));
  return file.insert(33, big(static_cast<uint32_t>(exif.size()), 4) + body + big(crc, 4));
}
std::string png_with(const Image& p, const std::string& exif) {
  return png_with(encode(p, Format::kPng), exif);
}

std::string jpeg_with(const Image& p, const std::string& exif) {
  const std::string body = std::string("Exif\0\0", 6) + exif;
  return encode(p, Format::kJpeg, 100)
      .insert(2, "\xFF\xE1" + big(static_cast<uint32_t>(body.size() + 2), 2) + body);
}

std::string webp_with(std::string file, const std::string& exif) {
  file += "EXIF" + little(static_cast<uint32_t>(exif.size()), 4) + exif;
  return file.replace(4, 4, little(static_cast<uint32_t>(file.size() - 8), 4));
}
std::string webp_with(const Image& p, const std::string& exif) {
  return webp_with(encode(p, Format::kWebp, 100), exif);
}

std::vector<int> reds(const Image& p) {
  std::vector<int> out{p.width};
  for (size_t i = 0; i < p.rgb.size(); i += 3) out.push_back(p.rgb[i]);
  return out;
}

TEST(Input, PicturesStandUprightAsExifSays) {
  const std::vector<std::vector<int>> expected{{3, 0, 7, 28, 13, 25, 51}, {3, 28, 7, 0, 51, 25, 13},
                                               {3, 51, 25, 13, 28, 7, 0}, {3, 13, 25, 51, 0, 7, 28},
                                               {2, 0, 13, 7, 25, 28, 51}, {2, 13, 0, 25, 7, 51, 28},
                                               {2, 51, 28, 25, 7, 13, 0}, {2, 28, 51, 7, 25, 0, 13}};
  const Image p = sample(3, 2);
  for (uint32_t o = 1; o <= 8; ++o) {
    for (const bool is_big : {false, true}) {
      const auto exif = exif_with(o, is_big);
      EXPECT_EQ(reds(decode_upright(png_with(p, exif))), expected[o - 1]) << o;
      EXPECT_EQ(reds(decode_upright(webp_with(p, exif))), expected[o - 1]) << o;
      EXPECT_EQ(decode_upright(jpeg_with(p, exif)).width, expected[o - 1][0]) << o;
    }
  }
}

// A row of four pixels of which the first is transparent, as WebP (lossless) and PNG.
TEST(Input, TransparencyIsTurnedAsColoursAre) {
  const std::vector<uint8_t> rgba{9, 9, 9, 0, 9, 9, 9, 255, 9, 9, 9, 255, 9, 9, 9, 255};
  uint8_t* coded = nullptr;
  const size_t size = WebPEncodeLosslessRGBA(rgba.data(), 4, 1, 16, &coded);
  const std::string webp(reinterpret_cast<const char*>(coded), size);
  WebPFree(coded);
  png_image picture{};
  picture.version = PNG_IMAGE_VERSION, picture.width = 4, picture.height = 1;
  picture.format = PNG_FORMAT_RGBA;
  std::string png(PNG_IMAGE_PNG_SIZE_MAX(picture), '\0');
  png_alloc_size_t bytes = png.size();
  ASSERT_TRUE(png_image_write_to_memory(&picture, png.data(), &bytes, 0, rgba.data(), 0, nullptr));
  png.resize(bytes);
  for (uint32_t o = 1; o <= 8; ++o) {
    const bool is_last = o == 2 || o == 3 || o == 7 || o == 8, stands = o >= 5;
    for (const auto& file : {png_with(png, exif_with(o, true)), webp_with(webp, exif_with(o, true))}) {
      const auto found = opacity_upright(file);
      EXPECT_EQ(found.width, stands ? 1 : 4) << o;
      EXPECT_EQ(found.height, stands ? 4 : 1) << o;
      EXPECT_EQ(found.values,
                is_last ? (std::vector<uint8_t>{255, 255, 255, 0}) : (std::vector<uint8_t>{0, 255, 255, 255}))
          << o;
    }
  }
  EXPECT_TRUE(opacity_upright(png_with(sample(3, 2), exif_with(6, true))).values.empty());
}

TEST(Input, DamagedExifTurnsNothing) {
  const Image p = sample(3, 2);
  const std::string good = exif_with(6, false);
  for (size_t cut = 0; cut + 8 < good.size(); ++cut)
    EXPECT_EQ(decode_upright(png_with(p, good.substr(0, cut))).width, 3) << cut;
  EXPECT_EQ(decode_upright(png_with(p, exif_with(9, true))).width, 3);
  EXPECT_EQ(orientation_of(write_exif({"a text", "{}"})), 1);
}

TEST(Input, MasksAreWhiteFromTheHalfOn) {
  const Image p{8, 1, {200, 90,  10,  200, 100, 10, 126, 126, 126, 127, 127, 127,
                       128, 128, 128, 0,   255, 0,  255, 0,   255, 0,   210, 40}};
  EXPECT_EQ(binary(p), (std::vector<uint8_t>{0, 0, 0, 0, 1, 1, 0, 1}));
}

std::string refusal(const std::filesystem::path& file) {
  return message_of(Kind::kUsage, [&] { read_picture_file(file); });
}

TEST(Input, FilesThatCannotBePicturesAreRefusedUnread) {
  const Scratch scratch;
  EXPECT_NE(refusal(scratch / "none.png").find("there is no picture"), std::string::npos);
  EXPECT_NE(refusal("https://example.com/a.png").find("fetch it first"), std::string::npos);
  EXPECT_NE(refusal("").find("empty name"), std::string::npos);
  EXPECT_NE(refusal(scratch.path()).find("not a file"), std::string::npos);
  EXPECT_NE(refusal("/dev/zero").find("not a file"), std::string::npos);
  const auto huge = scratch / "huge.png";
  std::ofstream(huge) << "x";
  std::filesystem::resize_file(huge, static_cast<uintmax_t>(kMaxFileBytes) + 1);  // sparse
  EXPECT_NE(refusal(huge).find("MiB"), std::string::npos);
  EXPECT_EQ(read_picture_file(scratch.write("good.png", "x")), "x");
}

}  // namespace
}  // namespace atelier::media
