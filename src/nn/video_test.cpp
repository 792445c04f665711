// Layers of videos, chunk by chunk, against the same of the whole video.
#include "nn/video.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "nn/testing.h"

namespace atelier::nn {
namespace {

// [B, C, f, rows, W] -> the form of the layers, and back.
at::Tensor to_layers(const at::Tensor& video) {
  return pictures_of(video.permute({0, 2, 3, 4, 1}).contiguous());
}
at::Tensor to_video(const at::Tensor& pictures, int64_t batch) {
  return frames_of(pictures, batch).permute({0, 4, 1, 2, 3});
}

TEST(Frames, OfAChunkArePicturesOneAfterAnother) {
  const auto video = random({2, 3, 5, 4, 6});
  const auto pictures = to_layers(video);
  EXPECT_EQ(pictures.sizes(), (at::IntArrayRef{10, 3, 4, 6}));
  EXPECT_TRUE(pictures.select(0, 7).equal(video.select(0, 1).select(1, 2)));
  EXPECT_TRUE(to_video(pictures, 2).equal(video));
  EXPECT_EQ(frames_of(pictures, 2).const_data_ptr(), pictures.const_data_ptr()) << "without a copy";
  const auto strided = random({2, 3, 4, 5, 6}).transpose(1, 2);
  EXPECT_TRUE(frames_of(pictures_of(strided), 2).equal(strided));
}

struct Convolved {
  CausalConv3d conv;
  at::Tensor whole;
};

Convolved convolved(const at::Tensor& video, const Conv3dShape& s, int64_t missing) {
  const auto w = random({4, 3, s.frames, s.kernel, s.kernel}, at::kDouble, 2),
             b = random({4}, at::kDouble, 3);
  const int64_t side = s.kernel / 2;
  const auto padded = at::constant_pad_nd(video, {side, side, side, side, missing, 0});
  return {CausalConv3d(w, b, s, nullptr), at::conv3d(padded, w, b, at::IntArrayRef{s.frame_stride, 1, 1})};
}

TEST(CausalConv3d, InChunksOfAnyLengthIsThatOfTheVideo) {
  const auto video = random({2, 3, 9, 4, 5});
  for (const Conv3dShape& shape : {Conv3dShape{}, Conv3dShape{.kernel = 1}}) {
    const auto [conv, whole] = convolved(video, shape, 2);
    for (const auto& chunks : std::vector<std::vector<int64_t>>{{9}, {1, 4, 4}, {1, 1, 2, 5}, {8, 1}}) {
      at::Tensor history;
      int64_t begin = 0;
      for (const int64_t frames : chunks) {
        const auto got = to_video(conv(to_layers(video.narrow(2, begin, frames)), 2, history), 2);
        EXPECT_LT(distance(got, whole.narrow(2, begin, frames)), 1e-12) << begin;
        begin += frames;
      }
      EXPECT_EQ(history.size(1), 2);
      EXPECT_EQ(history.storage().nbytes(), static_cast<size_t>(history.numel()) * 8) << "holds no more";
    }
  }
}

TEST(CausalConv3d, TakesANormWhereItReads) {
  const auto video = random({2, 3, 9, 4, 5});
  const ChannelNorm norm(random({3}, at::kDouble, 4));
  const CausalConv3d conv(random({4, 3, 3, 3, 3}, at::kDouble, 2), random({4}, at::kDouble, 3), {}, nullptr);
  at::Tensor history, other;
  for (const int64_t begin : {0, 4, 8}) {
    const auto x = to_layers(video.narrow(2, begin, begin < 8 ? 4 : 1));
    EXPECT_TRUE(conv.of_silu(norm, {x, {}}, 2, history).equal(conv(norm.silu({x, {}}), 2, other)));
    EXPECT_TRUE(history.equal(other));
  }
}

TEST(CausalConv3d, WithAStrideTakesEverySecondFrameBehindTheOneThatPassedBy) {
  const auto video = random({1, 3, 9, 4, 5});
  const auto [conv, whole] = convolved(video, {.kernel = 1, .frame_stride = 2}, 0);
  at::Tensor history;
  conv.remember(to_layers(video.narrow(2, 0, 1)), 1, history);
  for (const int64_t begin : {1, 5}) {
    const auto got = to_video(conv(to_layers(video.narrow(2, begin, 4)), 1, history), 1);
    EXPECT_LT(distance(got, whole.narrow(2, begin / 2, 2)), 1e-12);
  }
}

TEST(CausalConv3d, OfNoRowsHasNone) {
  const CausalConv3d conv(random({4, 3, 3, 3, 3}), random({4}), {}, nullptr);
  at::Tensor history;
  EXPECT_EQ(conv(to_layers(random({2, 3, 4, 0, 5})), 2, history).sizes(), (at::IntArrayRef{8, 4, 0, 5}));
}

TEST(ChannelNorm, DividesByTheRootMeanSquareOfEachPosition) {
  const auto x = random({2, 5, 3, 4}), w = random({5}, at::kDouble, 2);
  const auto want = x / x.square().mean(1, true).sqrt() * w.view({1, 5, 1, 1});
  const ChannelNorm norm(w);
  EXPECT_LT(distance(norm(x), want), 1e-12);
  EXPECT_LT(distance(norm.silu({x, {}}), want * want.sigmoid()), 1e-12);
  EXPECT_EQ(norm(x.narrow(2, 0, 0)).sizes(), (at::IntArrayRef{2, 5, 0, 4}));
  EXPECT_TRUE(norm(at::zeros_like(x)).equal(at::zeros_like(x)));
}

TEST(Blocks, AreAveragedOverNeighbouringChannelsWithZerosInFront) {
  const auto x = random({2, 4, 3, 4, 6});  // three frames: one is missing
  const auto got = to_video(BlockMean{.channels = 8, .time = 2, .side = 2}(to_layers(x), 2), 2);
  ASSERT_EQ(got.sizes(), (at::IntArrayRef{2, 8, 2, 2, 3}));
  const auto at = [&](int64_t c, int64_t frame, int64_t row, int64_t col) {
    return frame == 0 ? 0.0 : x[1][c][frame - 1][row][col].item<double>();
  };
  // Each channel has 8 numbers in a block, in the order of frame, row and column: two results of four.
  for (const int64_t out : {0, 3, 6}) {
    double sum = 0;
    for (int64_t k = out % 2 * 4; k < out % 2 * 4 + 4; ++k)
      sum += at(out / 2, 2 + k / 4, 2 + k / 2 % 2, 4 + k % 2);
    EXPECT_NEAR(got[1][out][1][1][2].item<double>(), sum / 4, 1e-12) << out;
  }
  EXPECT_NEAR(got[1][0][0][0][0].item<double>(), 0, 1e-12) << "the missing frame";
}

TEST(Blocks, AreFilledWithChannelsRepeated) {
  const auto x = random({1, 4, 2, 2, 3});
  const auto got = to_video(BlockRepeat{.channels = 2, .time = 2}(to_layers(x), 1), 1);
  ASSERT_EQ(got.sizes(), (at::IntArrayRef{1, 2, 4, 4, 6}));
  // 2 channels of 8 places hold 4 channels, each four times.
  for (const int64_t channel : {0, 1}) {
    for (const int64_t frame : {0, 1}) {
      for (const int64_t col : {0, 1}) {
        EXPECT_EQ(got[0][channel][2 + frame][2 + 1][4 + col].item<double>(),
                  x[0][2 * channel + frame][1][1][2].item<double>());
      }
    }
  }
}

}  // namespace
}  // namespace atelier::nn
