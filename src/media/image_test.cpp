// Round trips of every format with metadata, files cut off or damaged at many places, hostile sizes.
#include "media/image.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/version.h"
#include "media/limits.h"

namespace atelier::media {
namespace {

constexpr Format kFormats[] = {Format::kPng, Format::kJpeg, Format::kWebp};

// Smooth colours with some texture, like a drawn picture.
Image sample(int width, int height) {
  Image p{width, height, std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width * height))};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      uint8_t* at = &p.rgb[size_t{3} * static_cast<size_t>(y * width + x)];
      at[0] = static_cast<uint8_t>(128 + 100 * std::sin(x * 0.05) + (x * 7 + y * 13) % 5);
      at[1] = static_cast<uint8_t>(128 + 100 * std::cos(y * 0.04) + (x * 3 + y * 5) % 7);
      at[2] = static_cast<uint8_t>((x + y) / 8 % 256);
    }
  }
  return p;
}

Metadata sample_metadata() {
  return {"a red circle, “quoted” 猫 😀\nSteps: 4, Seed: 7",
          {{"seed", "7"}, {"prompt", "猫 😀 \"x\"\n"}, {"a", ""}}};
}

double mean_error(const Image& a, const Image& b) {
  double sum = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(int{a.rgb[i]} - int{b.rgb[i]});
  return sum / static_cast<double>(a.rgb.size());
}

Kind kind_of(std::string_view bytes) {
  try {
    decode(bytes);
  } catch (const Error& e) {
    return e.kind();
  }
  ADD_FAILURE() << "decoded";
  return Kind::kItem;
}

TEST(Image, PngAndLosslessWebpComeBackExactly) {
  for (const auto& [width, height] : {std::pair{1, 1}, {3, 5}, {64, 48}, {257, 1}, {1, 300}}) {
    const Image p = sample(width, height);
    EXPECT_EQ(decode(encode(p, Format::kPng)).rgb, p.rgb);
    const Image q = decode(encode(p, Format::kWebp, 100, sample_metadata()));
    EXPECT_EQ(q.rgb, p.rgb);
    EXPECT_EQ(q.width, width);
    EXPECT_EQ(q.height, height);
  }
}

TEST(Image, LossyFormatsComeBackNearly) {
  const Image p = sample(128, 96);
  EXPECT_LT(mean_error(decode(encode(p, Format::kJpeg)), p), 3.0);
  EXPECT_LT(mean_error(decode(encode(p, Format::kWebp, 90)), p), 4.0);
  EXPECT_LT(encode(p, Format::kJpeg, 40).size(), encode(p, Format::kJpeg).size());
  EXPECT_LT(encode(p, Format::kWebp, 40).size(), encode(p, Format::kWebp).size());
}

TEST(Image, EveryFormatKeepsItsMetadata) {
  const Image p = sample(32, 16);
  for (const Format format : kFormats) {
    const Metadata wrote = sample_metadata();
    const auto read = read_metadata(encode(p, format, 80, wrote));
    ASSERT_TRUE(read) << suffix(format);
    EXPECT_EQ(read->parameters, wrote.parameters) << suffix(format);
    EXPECT_EQ(read->values, wrote.values) << suffix(format);
    EXPECT_FALSE(read_metadata(encode(p, format))) << suffix(format);
    const auto only_text = read_metadata(encode(p, format, 80, {"plain", {}}));
    ASSERT_TRUE(only_text);
    EXPECT_EQ(only_text->parameters, "plain");
    EXPECT_TRUE(only_text->values.empty());
  }
}

TEST(Image, MetadataDoesNotChangeThePixels) {
  const Image p = sample(32, 16);
  for (const Format format : kFormats) {
    EXPECT_EQ(decode(encode(p, format, 80, sample_metadata())).rgb, decode(encode(p, format, 80)).rgb);
  }
}

TEST(Image, LongTextsFitIntoEveryFormat) {
  const Image p = sample(8, 8);
  std::string text;
  for (int i = 0; i < 40000; ++i) text += "é";
  for (const Format format : kFormats) {
    const std::string bytes = encode(p, format, 80, {text, {{"prompt", text}, {"seed", "3"}}});
    EXPECT_TRUE(is_whole(bytes));
    EXPECT_EQ(decode(bytes).width, 8);
    const auto read = read_metadata(bytes);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->parameters.substr(0, 1000), text.substr(0, 1000));
    EXPECT_EQ(read->values.at(1).second, "3");
    if (format != Format::kJpeg) {
      EXPECT_EQ(read->values.at(0).second, text);
    }
    if (format == Format::kJpeg) {
      EXPECT_TRUE(read->parameters.ends_with("..."));
    }
  }
}

TEST(Image, NoPrefixOfAFileIsComplete) {
  for (const Format format : kFormats) {
    const std::string bytes = encode(sample(40, 30), format, 80, sample_metadata());
    EXPECT_TRUE(is_whole(bytes));
    for (size_t n = 0; n < bytes.size(); ++n) {
      EXPECT_FALSE(is_whole(std::string_view(bytes).substr(0, n))) << suffix(format) << " " << n;
    }
  }
}

TEST(Image, TruncatedFilesAreRefused) {
  for (const Format format : kFormats) {
    const std::string bytes = encode(sample(64, 64), format, 80);
    for (const double part : {0.0, 0.01, 0.3, 0.6, 0.9}) {
      const auto n = static_cast<size_t>(part * static_cast<double>(bytes.size()));
      EXPECT_EQ(kind_of(std::string_view(bytes).substr(0, n)), Kind::kUsage) << suffix(format) << " " << n;
    }
  }
}

TEST(Image, AChangedByteInAPngIsNoticed) {
  std::string bytes = encode(sample(40, 30), Format::kPng, 80, sample_metadata());
  for (size_t i = 16; i < bytes.size(); i += 7) {
    bytes[i] = static_cast<char>(bytes[i] ^ 0x10);
    EXPECT_FALSE(is_whole(bytes)) << i;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x10);
  }
}

TEST(Image, RandomDamageNeverCrashes) {
  std::mt19937 random(1);
  for (const Format format : kFormats) {
    const std::string good = encode(sample(24, 24), format, 80, sample_metadata());
    for (int round = 0; round < 150; ++round) {
      std::string bytes = good;
      for (int k = 0; k < 1 + round % 5; ++k) bytes[random() % bytes.size()] = static_cast<char>(random());
      if (round % 3 == 0) bytes.resize(random() % bytes.size());
      read_metadata(bytes);
      is_whole(bytes);
      try {
        decode(bytes);
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), Kind::kUsage);
      }
    }
  }
}

TEST(Image, HugeDeclaredSizesAreRefusedBeforeAllocation) {
  std::string png = encode(sample(4, 4), Format::kPng);
  // 500,000 x 500,000 with a matching checksum
  const unsigned char header[] = {'I', 'H', 'D', 'R', 0, 7, 0xA1, 0x20, 0, 7, 0xA1, 0x20, 8, 2, 0, 0, 0};
  uint32_t crc = 0xFFFFFFFF;
  for (const unsigned char c : header) {
    crc ^= c;
    for (int k = 0; k < 8; ++k) crc = crc & 1 ? crc >> 1 ^ 0xEDB88320 : crc >> 1;
  }
  crc = ~crc;
  for (size_t i = 0; i < sizeof header; ++i) png[12 + i] = static_cast<char>(header[i]);
  for (size_t i = 0; i < 4; ++i) png[29 + i] = static_cast<char>(crc >> (24 - 8 * i));
  try {
    decode(png);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("500000 x 500000"), std::string::npos) << e.what();
  }
  std::string jpeg = encode(sample(4, 4), Format::kJpeg);
  const size_t frame = jpeg.find("\xFF\xC0");
  jpeg.replace(frame + 5, 4, "\xFF\x00\xFF\x00", 4);
  EXPECT_EQ(kind_of(jpeg), Kind::kUsage);
}

TEST(Image, SizesThatAFormatCannotHoldAreRefused) {
  const Image wide{20000, 1, std::vector<uint8_t>(60000)};
  EXPECT_THROW(encode(wide, Format::kWebp), Error);
  EXPECT_EQ(decode(encode(wide, Format::kPng)).width, 20000);
}

TEST(Image, FilesOnDiskAreChecked) {
  const auto folder =
      std::filesystem::temp_directory_path() / ("atelier_media_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::string bytes = encode(sample(16, 16), Format::kPng);
  std::ofstream(folder / "whole.png", std::ios::binary) << bytes;
  std::ofstream(folder / "cut.png", std::ios::binary) << bytes.substr(0, bytes.size() - 1);
  std::ofstream(folder / "empty.png").close();
  EXPECT_TRUE(is_complete(folder / "whole.png"));
  EXPECT_FALSE(is_complete(folder / "cut.png"));
  EXPECT_FALSE(is_complete(folder / "empty.png"));
  EXPECT_FALSE(is_complete(folder / "absent.png"));
  EXPECT_FALSE(is_complete(folder));
  EXPECT_FALSE(is_complete(std::filesystem::path("/dev/zero")));
  std::filesystem::remove_all(folder);
}

TEST(Image, FormatsAreNamedBySuffix) {
  EXPECT_EQ(format_of("a/b.PNG"), Format::kPng);
  EXPECT_EQ(format_of("b.jpeg"), Format::kJpeg);
  EXPECT_EQ(format_of("b.jpg"), Format::kJpeg);
  EXPECT_EQ(format_of("b.webp"), Format::kWebp);
  EXPECT_EQ(format_of("b.gif"), Format::kGif);
  EXPECT_EQ(format_of("b.mp4"), Format::kMp4);
  EXPECT_EQ(format_of("b.tiff"), std::nullopt);
  EXPECT_EQ(format_of("png"), std::nullopt);
}

TEST(Image, DescriptionReadsLikeOtherToolsWriteIt) {
  const Metadata m = describe({{"prompt", "a cat"},
                               {"negative_prompt", "blurry"},
                               {"num_inference_steps", 28},
                               {"guidance_scale", 3.5},
                               {"seed", 42},
                               {"width", 1024},
                               {"height", 768},
                               {"model", "mini"},
                               {"unset", nullptr}});
  EXPECT_EQ(
      m.parameters,
      "a cat\nNegative prompt: blurry\nSteps: 28, CFG scale: 3.5, Seed: 42, Size: 1024x768, Model: mini, "
      "Version: Atelier " +
          std::string(kVersion));
  EXPECT_EQ(m.values.size(), 8U);
}

TEST(Image, DescriptionTellsTheWeightOfTheNegativePromptFromEmbeddedGuidance) {
  const Metadata m = describe(Json{{"prompt", "a cat"}, {"guidance_scale", 3.5}, {"true_cfg_scale", 2.0}});
  EXPECT_TRUE(m.parameters.find("CFG scale: 2.0, Distilled CFG Scale: 3.5") != std::string::npos)
      << m.parameters;
}

TEST(Image, DescriptionNamesTheSamplerThatDrew) {
  const Json folder{{"prompt", "a"}, {"scheduler", "FlowMatchEulerDiscreteScheduler"}};
  EXPECT_NE(describe(folder).parameters.find("Sampler: FlowMatchEuler"), std::string::npos);
  Json chosen = folder;
  chosen["sampler"] = "flow_heun";
  EXPECT_NE(describe(chosen).parameters.find("Sampler: flow_heun,"), std::string::npos);
}

TEST(Image, PngOfAMegapixelIsFast) {
  const Image p = sample(1024, 1024);
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(encode(p, Format::kPng).empty());
    best = std::min(
        best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  RecordProperty("png_ms", static_cast<int>(best));
  // 60 ms is the aim; a loaded or sanitized machine gets some room
  EXPECT_LT(best, 300.0);
}

TEST(Metadata, ALongPromptLosesItsOwnEndAndNotTheSeed) {
  const Metadata long_one =
      describe({{"prompt", std::string(100000, 'p')}, {"seed", 12345}, {"width", 16}, {"height", 16}});
  const Image picture{16, 16, std::vector<uint8_t>(768, 9)};
  for (const Format format : kFormats) {
    const auto read = read_metadata(encode(picture, format, 95, long_one));
    ASSERT_TRUE(read) << suffix(format);
    EXPECT_NE(read->parameters.find("Seed: 12345, Size: 16x16"), std::string::npos) << suffix(format);
    EXPECT_TRUE(read->parameters.starts_with("pppp")) << suffix(format);
  }
}

TEST(Limits, SidesThatAFormatCannotHoldAreNamedBeforeAnythingIsDrawn) {
  EXPECT_EQ(size_problem(Format::kWebp, 16383, 16383), "");
  EXPECT_NE(size_problem(Format::kWebp, 16, 16384).find("16 x 16384 does not fit into a webp"),
            std::string::npos);
  EXPECT_NE(size_problem(Format::kJpeg, 65536, 1), "");
  EXPECT_EQ(size_problem(Format::kPng, 65536, 65536), "");
}

}  // namespace
}  // namespace atelier::media
