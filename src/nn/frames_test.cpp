// What models of videos need of layers: a norm across all heads, tokens that differ in their modulation,
// frames as tokens.
#include <ATen/ops/cat.h>
#include <ATen/ops/rsqrt.h>
#include <gtest/gtest.h>

#include <array>

#include "nn/norm.h"
#include "nn/patchify.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

// The sums of a rank that holds the other heads.
struct OtherHeads : Reducer {
  at::Tensor squares;
  int calls = 0;
  void sum(at::Tensor& value) override {
    value.add_(squares);
    ++calls;
  }
};

TEST(AcrossHeads, ShareOneMeanSquareHoweverHeadsAreCut) {
  const auto q = random({5, 2, 12}), k = random({5, 2, 12}, at::kDouble, 2);
  const auto weight_q = random({12}, at::kDouble, 3), weight_k = random({12}, at::kDouble, 4);
  const auto whole = [&](const at::Tensor& x, const at::Tensor& w) {
    return x * at::rsqrt(x.square().mean(-1, true) + 1e-6) * w;
  };
  const auto part = [](const at::Tensor& x) { return x.narrow(-1, 4, 8); };
  OtherHeads other;
  const auto squares = [](const at::Tensor& x) { return x.narrow(-1, 0, 4).square().sum(-1, true); };
  other.squares = at::cat({squares(q), squares(k)}, -1);
  const AcrossHeadsNorm norm_q{part(weight_q), 12, 1e-6, &other}, norm_k{part(weight_k), 12, 1e-6, &other};
  const std::array norms{&norm_q, &norm_k};
  const std::array xs{part(q), part(k)};
  const auto cut = across_heads(norms, xs);
  EXPECT_EQ(other.calls, 1) << "one sum for both";
  EXPECT_LT(distance(cut[0], part(whole(q, weight_q))), 1e-12);
  EXPECT_LT(distance(cut[1], part(whole(k, weight_k))), 1e-12);
  const AcrossHeadsNorm alone{weight_q, 12, 1e-6, nullptr};
  const std::array one{&alone};
  EXPECT_LT(distance(across_heads(one, std::span(&q, 1))[0], whole(q, weight_q)), 1e-12);
}

TEST(AcrossHeads, ARankWithoutHeadsTakesPartInTheSum) {
  OtherHeads other;
  other.squares = random({5, 2, 1}).square();
  const AcrossHeadsNorm none{random({0}), 12, 1e-6, &other};
  const std::array norms{&none};
  const auto x = random({5, 2, 0});
  EXPECT_EQ(across_heads(norms, std::span(&x, 1))[0].numel(), 0);
  EXPECT_EQ(other.calls, 1);
}

TEST(ModulatedTokensInParts, EqualTheirPartsOneByOne) {
  const auto x = random({7, 2, 6});
  const auto modulation = [](uint64_t seed) -> Modulation {
    return {random({2, 6}, at::kDouble, seed), random({2, 6}, at::kDouble, seed + 1),
            random({2, 6}, at::kDouble, seed + 2)};
  };
  const std::array<ModulatedTokens, 3> parts{ModulatedTokens{3, modulation(10)},
                                             ModulatedTokens{0, modulation(20)},
                                             ModulatedTokens{4, modulation(30)}};
  const at::Tensor whole = norm(x, parts);
  const auto first = x.narrow(0, 0, 3).contiguous(), last = x.narrow(0, 3, 4).contiguous();
  const at::Tensor a = norm(first, parts[0].modulation), b = norm(last, parts[2].modulation);
  EXPECT_EQ(distance(whole, at::cat({a, b})), 0);
  const auto y = random({7, 2, 6}, at::kDouble, 5);
  auto sum = x.clone();
  gated_(sum, parts, y);
  gated_(first, parts[0].modulation.gate, y.narrow(0, 0, 3));
  gated_(last, parts[2].modulation.gate, y.narrow(0, 3, 4));
  EXPECT_EQ(distance(sum, at::cat({first, last})), 0);
}

TEST(Frames, AreTokensOneFrameAfterAnother) {
  const auto video = random({2, 3, 4, 6, 8});
  const auto tokens = pack_frames_2x2(video);
  ASSERT_EQ(tokens.sizes(), (at::IntArrayRef{4 * 3 * 4, 2, 12}));
  EXPECT_EQ(distance(unpack_frames_2x2(tokens, 4, 3, 4), video), 0);
  // As pictures are packed, frame by frame.
  EXPECT_EQ(distance(tokens.narrow(0, 2 * 12, 12), pack_2x2(video.select(2, 2))), 0);
  const auto at = frame_coordinates(4, 3, 4);
  EXPECT_EQ(at[2 * 12 + 5][0].item<int64_t>(), 2);
  EXPECT_EQ(at[2 * 12 + 5][1].item<int64_t>(), 1);
  EXPECT_EQ(at[2 * 12 + 5][2].item<int64_t>(), 1);
}

}  // namespace
}  // namespace atelier::nn
