// Round trips of videos in every format with metadata, files of other programs, files cut off or damaged.
#include "media/video.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <latch>
#include <random>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/testing.h"
#include "base/thread_pool.h"
#include "media/animation.h"
#include "media/resample.h"

namespace atelier::media {
namespace {

namespace fs = std::filesystem;

// A square that moves over a gradient.
Video sample(int width, int height, int frames, double fps = 16) {
  Video video{{}, fps};
  for (int f = 0; f < frames; ++f) {
    Image p{width, height, std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width * height))};
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        uint8_t* at = &p.rgb[size_t{3} * static_cast<size_t>(y * width + x)];
        const bool is_square = x >= 3 * f && x < 3 * f + 12 && y >= 4 && y < 16;
        at[0] = is_square ? 220 : static_cast<uint8_t>(40 + 2 * x % 100);
        at[1] = is_square ? 30 : static_cast<uint8_t>(60 + 3 * y % 90);
        at[2] = is_square ? 40 : static_cast<uint8_t>(120 + (x + y) % 40);
      }
    }
    video.frames.push_back(std::move(p));
  }
  return video;
}

Metadata sample_metadata() {
  return {"a red circle moves, “quoted” 猫 😀\nSteps: 4, Seed: 7",
          {{"seed", "7"}, {"prompt", "猫 😀 \"x\"\n"}}};
}

double mean_error(const Image& a, const Image& b) {
  EXPECT_EQ(a.rgb.size(), b.rgb.size());
  double sum = 0;
  for (size_t i = 0; i < std::min(a.rgb.size(), b.rgb.size()); ++i)
    sum += std::abs(int{a.rgb[i]} - int{b.rgb[i]});
  return sum / static_cast<double>(a.rgb.size());
}

struct Clip {
  AnimationFacts facts;
  std::vector<Image> frames;
};

Clip read_all(const fs::path& path, int64_t most = 1000) {
  Clip clip;
  clip.facts = read_clip(path, most, [&](Image frame) { clip.frames.push_back(std::move(frame)); });
  return clip;
}

std::string refusal(const fs::path& path) {
  try {
    read_all(path);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kUsage);
    return e.what();
  }
  ADD_FAILURE() << path << " was read";
  return {};
}

class Videos : public testing::Test {
 protected:
  fs::path put(const std::string& name, std::string_view bytes) const {
    write_file_atomically(folder_.path() / name, bytes);
    return folder_.path() / name;
  }
  TemporaryFolder folder_;
};

// MP4s are tested where FFmpeg's libraries are: the module is built with them.
bool has_module() {
  try {
    ffmpeg_module();
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST_F(Videos, WebpAndGifComeBackWithFramesRateAndMetadata) {
  const Video video = sample(46, 31, 7, 12.5);
  for (const auto& [format, quality, error] :
       {std::tuple{Format::kWebp, 100, 0.0}, {Format::kWebp, 95, 6.0}, {Format::kGif, 95, 3.0}}) {
    const auto bytes = encode(video, format, quality, sample_metadata());
    const auto clip = read_all(put("x", bytes));
    ASSERT_EQ(clip.frames.size(), 7u);
    EXPECT_EQ(clip.facts.frames, 7);
    EXPECT_NEAR(clip.facts.fps, 12.5, 0.2);
    for (size_t i = 0; i < 7; ++i) EXPECT_LE(mean_error(clip.frames[i], video.frames[i]), error) << i;
    const auto metadata = read_metadata(bytes);
    ASSERT_TRUE(metadata);
    EXPECT_EQ(metadata->parameters, sample_metadata().parameters);
    EXPECT_EQ(metadata->values, sample_metadata().values);
    EXPECT_TRUE(is_whole(bytes));
  }
}

TEST_F(Videos, HaveTheirFramesEncodedSideBySideAndInOrder) {
  const auto video = sample(24, 24, 40);
  std::latch two(2);
  std::atomic<int> begun = 0;
  const auto coded = encode_each(video, [&](const Image& frame) {
    if (default_workers() > 1 && ++begun <= 2) two.arrive_and_wait();
    return std::string(frame.rgb.begin(), frame.rgb.end());
  });
  ASSERT_EQ(coded.size(), video.frames.size());
  for (size_t i = 0; i < coded.size(); ++i)
    EXPECT_TRUE(std::equal(coded[i].begin(), coded[i].end(), video.frames[i].rgb.begin(),
                           [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; }));
  const auto fails = [](const Image&) -> std::string { throw Error(Kind::kItem, "no"); };
  EXPECT_THROW(encode_each(video, fails), Error);
}

TEST_F(Videos, OfManyColoursAndSizesComeBackAsGif) {
  std::mt19937 random(1);
  for (const auto& [width, height] : {std::pair{1, 1}, {2, 3}, {300, 200}}) {
    Video video{{}, 5};
    for (int f = 0; f < 2; ++f) {
      Image p{width, height, std::vector<uint8_t>(size_t{3} * static_cast<size_t>(width * height))};
      for (auto& v : p.rgb) v = static_cast<uint8_t>(random());
      video.frames.push_back(std::move(p));
    }
    const auto clip = read_all(put("x.gif", encode(video, Format::kGif, 95, {})));
    ASSERT_EQ(clip.frames.size(), 2u);
    EXPECT_LT(mean_error(clip.frames[1], video.frames[1]), 20);  // 256 of 16 million colours
  }
}

TEST_F(Videos, KeepTheirRateOverManyFrames) {
  for (const double fps : {7.0, 16.0, 23.976, 30.0}) {
    const auto video = sample(8, 8, 60, fps);
    EXPECT_NEAR(read_all(put("x", encode(video, Format::kWebp, 50, {}))).facts.fps, fps, 0.05);
    EXPECT_NEAR(read_all(put("x", encode(video, Format::kGif, 50, {}))).facts.fps, fps, 0.2);
  }
}

TEST_F(Videos, OfOtherProgramsAreReadAsPillowReadsThem) {
  const std::pair<const char*, std::vector<const char*>> files[] = {
      {"partial.gif",
       {"efb4b94c2b62491b", "7ca816fdde186325", "8f13d01747ac9069", "0dba5c8c818e1345", "7c0246c488674eef"}},
      {"transparent.gif",
       {"d01216f4e4dbb31c", "567e5a49b44f78c4", "46eea356d68fc3a2", "14eec4c801992f2f", "df759ad18f502a58"}},
      {"interlaced.gif", {"2e9b67af46d7c2f6"}},
      {"lossless.webp",
       {"dde6d31bde204f8b", "8ff891ad2fd5c3ad", "096c99b5f9fc2828", "2e4be5838ac25467", "eb915a3b59cd73b1"}},
      {"mixed.webp",
       {"33805c7adb652341", "64e309d22fef48a9", "315bc6c88b5d8402", "186241eac087194f", "6539a843ed5edd94"}},
  };
  for (const auto& [name, digests] : files) {
    const auto clip = read_all(fs::path("tests/data") / name);
    ASSERT_EQ(clip.frames.size(), digests.size()) << name;
    for (size_t i = 0; i < digests.size(); ++i) {
      const auto& rgb = clip.frames[i].rgb;
      const std::string_view bytes(reinterpret_cast<const char*>(rgb.data()), rgb.size());
      EXPECT_EQ(sha256(bytes).substr(0, 16), digests[i]) << name << ", frame " << i;
    }
  }
}

TEST_F(Videos, CutOffAnywhereAreNotWholeAndRefused) {
  for (const auto format : {Format::kWebp, Format::kGif}) {
    const auto bytes = encode(sample(24, 24, 3), format, 90, sample_metadata());
    for (size_t n = 0; n < bytes.size(); n += 1 + bytes.size() / 97) {
      const auto part = std::string_view(bytes).substr(0, n);
      EXPECT_FALSE(is_whole(part)) << n;
      if (n < 32) continue;
      EXPECT_FALSE(refusal(put("x", part)).empty()) << n;
    }
  }
}

TEST_F(Videos, DamagedAnywhereNeitherCrashNorGrow) {
  std::mt19937 random(7);
  for (const auto format : {Format::kWebp, Format::kGif}) {
    const auto bytes = encode(sample(24, 24, 3), format, 90, sample_metadata());
    for (int i = 0; i < 300; ++i) {
      auto damaged = bytes;
      for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
      is_whole(damaged);
      read_metadata(damaged);
      try {
        read_all(put("x", damaged), 100);
      } catch (const Error&) {
      }
    }
  }
}

TEST_F(Videos, ThatSayTheyAreHugeAreRefusedBeforeMemoryIsTaken) {
  auto gif = encode(sample(8, 8, 2), Format::kGif, 90, {});
  gif[6] = gif[7] = gif[8] = gif[9] = '\xff';
  EXPECT_NE(refusal(put("x.gif", gif)).find("65535 x 65535"), std::string::npos);
  auto webp = encode(sample(8, 8, 2), Format::kWebp, 90, {});
  for (size_t i = 24; i < 30; ++i) webp[i] = '\xff';
  EXPECT_NE(refusal(put("x.webp", webp)).find("pixels"), std::string::npos);
}

TEST_F(Videos, ArePicturesOneAfterAnotherInFoldersToo) {
  const auto video = sample(20, 16, 3);
  for (const auto& [name, bytes] : encode_frames(video, {})) put(name, bytes);
  put("notes.txt", "no picture");
  const auto clip = read_all(folder_.path());
  ASSERT_EQ(clip.frames.size(), 3u);
  EXPECT_EQ(clip.frames[2].rgb, video.frames[2].rgb);
  EXPECT_EQ(read_all(folder_.path(), 2).frames.size(), 2u);
  const auto digest = digest_of_clip(folder_.path());
  put("0001.png", encode(video.frames[0], Format::kPng));
  EXPECT_NE(digest_of_clip(folder_.path()), digest);
}

TEST_F(Videos, ReadNoMoreFramesThanAreWanted) {
  for (const auto format : {Format::kWebp, Format::kGif}) {
    const auto bytes = encode(sample(16, 16, 9), format, 90, {});
    EXPECT_EQ(read_all(put("x", bytes), 4).frames.size(), 4u);
    // what is behind them may be anything
    EXPECT_EQ(read_all(put("x", bytes), 1).facts.frames, 1);
  }
}

TEST_F(Videos, ThatAreNoFilesAreRefusedByName) {
  EXPECT_NE(refusal(folder_.path() / "none.mp4").find("none.mp4: there is no such file"), std::string::npos);
  EXPECT_NE(refusal(folder_.path()).find("holds no pictures"), std::string::npos);
  const auto fifo = folder_.path() / "endless.mp4";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(refusal(fifo).find("neither a file nor a folder"), std::string::npos);
}

TEST_F(Videos, AsFoldersOfFramesKnowWhetherTheyAreWhole) {
  const auto files = encode_frames(sample(20, 16, 4), sample_metadata());
  for (const auto& [name, bytes] : files) put(name, bytes);
  const auto found = look_at_frames(folder_.path());
  EXPECT_TRUE(found.is_whole);
  EXPECT_EQ(found.sha256, digest_of(files));
  ASSERT_TRUE(found.metadata);
  EXPECT_EQ(found.metadata->values, sample_metadata().values);
  fs::remove(folder_.path() / "0003.png");
  EXPECT_FALSE(look_at_frames(folder_.path()).is_whole);
  EXPECT_FALSE(look_at_frames(folder_.path() / "none").is_whole);
}

TEST_F(Videos, AreNotWrittenWhereOnePictureFits) {
  for (const auto format : {Format::kPng, Format::kJpeg}) {
    try {
      encode(sample(8, 8, 2), format, 90, {});
      ADD_FAILURE();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
      EXPECT_NE(std::string(e.what()).find(".webp, .gif, .mp4 or .frames"), std::string::npos);
    }
  }
}

TEST_F(Videos, AsMp4ComeBackWithFramesRateAndMetadata) {
  if (!has_module()) GTEST_SKIP() << "FFmpeg's libraries are not here, so no MP4 was written";
  for (const auto& [width, height, frames] : {std::tuple{64, 48, 9}, {46, 31, 5}, {16, 16, 1}}) {
    const Video video = sample(width, height, frames, 12.5);
    const auto made = encode_mp4(video, 95, sample_metadata());
    EXPECT_NE(made.codec.find('('), std::string::npos);
    EXPECT_TRUE(is_whole(made.bytes));
    const auto metadata = read_metadata(made.bytes);
    ASSERT_TRUE(metadata);
    EXPECT_EQ(metadata->parameters, sample_metadata().parameters);
    EXPECT_EQ(metadata->values, sample_metadata().values);
    const auto clip = read_all(put("x.mp4", made.bytes));
    ASSERT_EQ(clip.frames.size(), static_cast<size_t>(frames));
    EXPECT_NEAR(clip.facts.fps, 12.5, 0.01);
    for (size_t i = 0; i < clip.frames.size(); ++i)
      EXPECT_LT(mean_error(clip.frames[i], video.frames[i]), 8) << i;
  }
}

// Whoever asked for it was told; what is drawn already fails by itself.
TEST_F(Videos, AsMp4FailAloneWhereThereIsNoModule) {
  if (has_module()) GTEST_SKIP() << "FFmpeg's libraries are here, so an MP4 can be written";
  const auto message = message_of(Kind::kItem, [&] { encode_mp4(sample(16, 16, 2), 95, {}); });
  EXPECT_NE(message.find("libavcodec"), std::string::npos) << message;
}

TEST_F(Videos, AsMp4KeepTheirColours) {
  if (!has_module()) GTEST_SKIP() << "FFmpeg's libraries are not here, so no MP4 was written";
  for (const std::array<uint8_t, 3> colour :
       {std::array<uint8_t, 3>{200, 40, 30}, {20, 220, 90}, {10, 30, 240}, {255, 255, 255}}) {
    Video video{{{32, 32, {}}}, 10};
    for (int i = 0; i < 32 * 32; ++i)
      video.frames[0].rgb.insert(video.frames[0].rgb.end(), colour.begin(), colour.end());
    const auto clip = read_all(put("x.mp4", encode_mp4(video, 95, {}).bytes));
    for (size_t c = 0; c < 3; ++c) EXPECT_NEAR(clip.frames.at(0).rgb[3 * 500 + c], colour[c], 4) << c;
  }
}

TEST_F(Videos, AsMp4AreWrittenByWhateverEncoderIsThere) {
  if (!has_module()) GTEST_SKIP() << "FFmpeg's libraries are not here, so no MP4 was written";
  const Video video = sample(64, 64, 5);
  int written = 0;
  for (const auto& encoder : kVideoEncoders) {
    try {
      const auto made = ffmpeg_module().encode(video, 95, {}, {"no-such-encoder", encoder});
      EXPECT_NE(made.codec.find(encoder), std::string::npos) << made.codec;
      EXPECT_EQ(read_all(put(encoder, made.bytes)).frames.size(), 5u) << encoder;
      ++written;
    } catch (const Error&) {
      throw;
    } catch (const std::runtime_error& e) {
      EXPECT_NE(std::string(e.what()).find(encoder), std::string::npos) << e.what();
    }
  }
  EXPECT_GT(written, 0);
}

TEST_F(Videos, ThatAreNamedLikePicturesAreNotTakenForFilms) {
  const auto broken = message_of(Kind::kUsage, [&] { read_all(put("r.png", "x")); });
  EXPECT_NE(broken.find("r.png: it holds no PNG"), std::string::npos) << broken;
}

// With FFmpeg's libraries or without: installing them would not help.
TEST_F(Videos, ThatAreNoneByWhatTheyHoldAreSoCalled) {
  EXPECT_NE(refusal(put("empty.mp4", "")).find("empty.mp4: it is empty, so no video"), std::string::npos);
  std::string noise(4096, ' ');
  std::mt19937 random(7);
  for (char& c : noise) c = static_cast<char>(random());
  for (const auto& text : {noise, std::string("a note about a video\n")}) {
    const auto said = refusal(put("noise.mov", text));
    EXPECT_NE(said.find("noise.mov: it is no video and no picture"), std::string::npos) << said;
    EXPECT_EQ(said.find("libavcodec-dev"), std::string::npos) << said;
  }
  if (has_module()) return;
  for (const char* begin : {"\x1a\x45\xdf\xa3", "....ftypisom", "RIFF....AVI ", "OggS"}) {
    const auto said = refusal(put("video.bin", std::string(begin) + noise));
    EXPECT_NE(said.find("libavcodec-dev"), std::string::npos) << said;
  }
}

TEST_F(Videos, AsMp4CutOffOrDamagedAreRefused) {
  if (!has_module()) GTEST_SKIP() << "FFmpeg's libraries are not here, so no MP4 was read";
  const auto bytes = encode_mp4(sample(64, 64, 20), 95, sample_metadata()).bytes;
  for (size_t n = 0; n < bytes.size(); n += 1 + bytes.size() / 31) {
    const auto part = std::string_view(bytes).substr(0, n);
    EXPECT_FALSE(is_whole(part)) << n;
    const auto file = put("x.mp4", part);
    try {
      EXPECT_EQ(read_all(file).frames.size(), 20u) << n;  // only what it says of itself is cut off
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
    }
  }
  std::mt19937 random(3);
  for (int i = 0; i < 100; ++i) {
    auto damaged = bytes;
    for (int k = 0; k < 8; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      EXPECT_LE(read_all(put("x.mp4", damaged), 100).frames.size(), 100u);
    } catch (const Error&) {
    }
  }
  EXPECT_NE(refusal(put("list.mp4", "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")).find("no video"),
            std::string::npos);
}

TEST(Resampling, ByBicubicIsPillowsToTheBit) {
  const auto picture = sample(23, 17, 1).frames[0];
  const std::tuple<int, int, const char*> wanted[] = {{10, 7, "fa733a97e5169083"},
                                                      {50, 40, "7bc5fac035659a42"},
                                                      {23, 8, "8426ca4135ac1ebc"},
                                                      {11, 17, "6750f9650bd0cf32"},
                                                      {224, 224, "7973c1052955e7a9"}};
  for (const auto& [width, height, digest] : wanted) {
    const auto made = resized(picture, width, height, Filter::kBicubic);
    const std::string_view bytes(reinterpret_cast<const char*>(made.rgb.data()), made.rgb.size());
    EXPECT_EQ(sha256(bytes).substr(0, 16), digest) << width << "x" << height;
  }
}

}  // namespace
}  // namespace atelier::media
