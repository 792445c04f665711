// Hidden states of MLPs that are made for some tokens at a time.
#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "nn/linear.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

struct Mlp {
  at::Tensor w1 = at::randn({24, 8}), b1 = at::randn({24}), w2 = at::randn({8, 24}), b2 = at::randn({8});
  std::shared_ptr<TokenChunks> chunks = std::make_shared<TokenChunks>(TokenChunks{.tokens = 5});
  Linear up(bool is_chunked) const {
    const Linear whole(w1, b1, nullptr);
    return is_chunked ? whole.by_chunks(chunks) : whole;
  }
};

TEST(TokenChunks, GiveWhatTheWholeGivesAndCountWhatTheySave) {
  const Mlp m;
  const Linear down(m.w2, m.b2, nullptr);
  for (const int64_t tokens : {4, 5, 6, 17}) {
    const auto x = at::randn({tokens, 2, 8});
    const auto expected = at::linear(at::gelu(at::linear(x, m.w1, m.b1), "tanh"), m.w2, m.b2);
    EXPECT_LT(distance(down(gelu_tanh(m.up(true), x)), expected), 1e-6) << tokens;
  }
  EXPECT_EQ(m.chunks->whole_bytes, 17 * 2 * 24 * 4);
  EXPECT_EQ(m.chunks->held_bytes, 5 * 2 * 24 * 4);
}

TEST(TokenChunks, AreNarrowedTogetherWithTheSegmentsBesideThem) {
  const Mlp m;
  const auto w = at::randn({8, 34}), x = at::randn({12, 1, 8}), beside = at::randn({12, 1, 10});
  const Linear down(w, {}, nullptr);
  const auto whole = down({beside, gelu_tanh(m.up(false), x)});
  EXPECT_LT(distance(down({beside, gelu_tanh(m.up(true), x)}), whole), 1e-6);
}

TEST(TokenChunks, AreWrittenWholeForWhoeverAsks) {
  const Mlp m;
  const auto x = at::randn({12, 1, 8});
  const at::Tensor whole = gelu_tanh(m.up(true), x), expected = gelu_tanh(m.up(false), x);
  EXPECT_LT(distance(whole, expected), 1e-6);
}

}  // namespace
}  // namespace atelier::nn
