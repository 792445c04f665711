// Sizes of one picture: cut at the same places, and the halving convolution agrees with the arithmetic.
#include "nn/pyramid.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "nn/testing.h"

namespace atelier::nn {
namespace {

CallContext call(int64_t rows, int64_t cols, int64_t together, int parts, int part) {
  return {.patch = std::nullopt,
          .streams = {{.patches = {rows * cols, 1}, .seq_parts = parts, .unit = together * cols}},
          .seq_rank = part};
}

TEST(Pyramid, EverySizeIsCutAtTheSamePlaces) {
  const int64_t levels = 3, cols = 5;
  for (const int64_t rows : {1, 4, 8, 9, 13, 31}) {
    for (const int parts : {1, 2, 3}) {
      for (int64_t level = 0; level < levels; ++level) {
        const int64_t scale = int64_t{1} << level, high = (rows + scale - 1) / scale;
        int64_t next = 0;
        for (int part = 0; part < parts; ++part) {
          const auto f = call(rows, cols, 4, parts, part);
          const auto at = at_level(f, levels, level);
          EXPECT_EQ(at.cols, (cols + scale - 1) / scale);
          const auto held = at.call.streams[0].held(part, std::nullopt).front();
          const auto largest = f.streams[0].held(part, std::nullopt).front();
          EXPECT_EQ(held.begin, next * at.cols);
          EXPECT_EQ(held.size, at.rows * at.cols);
          EXPECT_EQ(largest.begin / cols, std::min(next * scale, rows)) << rows << " over " << parts;
          next += at.rows;
        }
        EXPECT_EQ(next, high) << rows << " over " << parts;
      }
    }
  }
}

TEST(Pyramid, AHalvingConvolutionMakesTheNextSize) {
  const Conv2d halve(random({2, 3, 3, 3}), random({2}), {.stride = 2}, nullptr);
  for (const int64_t rows : {1, 2, 7, 8}) {
    const auto next = at_level(call(rows, 9, 2, 1, 0), 2, 1);
    const auto y = halve(random({1, 3, rows, 9}));
    EXPECT_EQ(y.size(2), next.rows);
    EXPECT_EQ(y.size(3), next.cols);
  }
}

TEST(Pyramid, PixelsAreRowByRow) {
  const auto picture = random({2, 3, 4, 5});
  const auto pixels = pixels_of(picture);
  EXPECT_TRUE(at::equal(pixels[7][1], picture.select(0, 1).select(1, 1).select(1, 2)));
  EXPECT_TRUE(at::equal(picture_of(pixels, 4, 5), picture));
}

}  // namespace
}  // namespace atelier::nn
