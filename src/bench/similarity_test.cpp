// Differences of pictures, and how they are shown.
#include "bench/similarity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"

namespace atelier::bench {
namespace {

media::Image ramp(int width, int height, int plus = 0) {
  media::Image out{width, height, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < 3; ++c)
        out.rgb.push_back(static_cast<uint8_t>(std::min(255, 7 * x + 3 * y + 20 * c + plus)));
  return out;
}

TEST(Similarity, EqualPictures) {
  const auto s = similarity(ramp(24, 16), ramp(24, 16));
  EXPECT_EQ(s.most_levels, 0);
  EXPECT_EQ(s.share, 0);
  EXPECT_TRUE(std::isinf(s.psnr));
  EXPECT_EQ(s.ssim, 1);
}

TEST(Similarity, OneLevelEverywhere) {
  const auto s = similarity(ramp(24, 16, 1), ramp(24, 16));
  EXPECT_EQ(s.most_levels, 1);
  EXPECT_DOUBLE_EQ(s.share, 1);
  EXPECT_NEAR(s.psnr, 20 * std::log10(255), 1e-9);
  EXPECT_GT(s.ssim, 0.999);
}

TEST(Similarity, AnotherPictureIsFar) {
  auto other = ramp(24, 16);
  for (size_t i = 0; i < other.rgb.size(); ++i) other.rgb[i] = static_cast<uint8_t>(i * 97 % 251);
  const auto s = similarity(other, ramp(24, 16));
  EXPECT_LT(s.psnr, 15);
  EXPECT_LT(s.ssim, 0.3);
  EXPECT_THROW(similarity(ramp(8, 8), ramp(8, 9)), Error);
}

TEST(Similarity, TheHeatMapShowsWhere) {
  auto other = ramp(8, 8);
  other.rgb[3 * 9 + 1] = static_cast<uint8_t>(other.rgb[3 * 9 + 1] + kHottest);
  const auto heat = heat_map(other, ramp(8, 8));
  for (size_t i = 0; i < heat.rgb.size(); ++i) EXPECT_EQ(heat.rgb[i], i / 3 == 9 ? 255 : 0) << i;
}

TEST(Similarity, PicturesStandBesideEachOther) {
  const auto two = beside({ramp(4, 3), ramp(2, 3)}, 5);
  EXPECT_EQ(two.width, 11);
  EXPECT_EQ(two.height, 3);
  EXPECT_EQ(two.rgb.size(), 99u);
  EXPECT_EQ(two.rgb[4 * 3], 255) << "the gap";
  EXPECT_EQ(two.rgb[9 * 3], ramp(2, 3).rgb[0]);
  const auto half = reduced(ramp(8, 4), 2);
  EXPECT_EQ(half.width, 4);
  EXPECT_EQ(half.rgb[0], 5) << "the mean of 0, 7, 3 and 10";
}

}  // namespace
}  // namespace atelier::bench
