// Attention to a prompt against plain softmax in double: padding, norms, rope, and memory that stays.
#include "nn/cross_attention.h"

#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/patchify.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

constexpr int64_t kTokens = 7, kKeys = 5, kBatch = 2, kHeads = 3, kWidth = 8;

struct Case {
  at::Tensor q, k, v;  // [n, B, h, d]
  CrossAttention cross{4, Dim{kHeads, kWidth}};
  RequestContext context;
  State state;

  explicit Case(at::ScalarType type, uint64_t seed = 1)
      : q(random({kTokens, kBatch, kHeads, kWidth}, type, seed)),
        k(random({kKeys, kBatch, kHeads, kWidth}, type, seed + 1)),
        v(random({kKeys, kBatch, kHeads, kWidth}, type, seed + 2)) {
    state.context = &context;
  }
  at::Tensor run(std::vector<int64_t> lengths) {
    cross.begin(context, {.k = k, .v = v}, lengths);
    return cross(state, {.q = q});
  }
};

// Softmax over the first keys of one sample only.
at::Tensor plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const std::vector<int64_t>& lengths) {
  std::vector<at::Tensor> samples;
  for (int64_t b = 0; b < q.size(1); ++b) {
    const auto of = [&](const at::Tensor& t) { return t.select(1, b).to(at::kDouble).transpose(0, 1); };
    const int64_t n = lengths.empty() ? k.size(0) : lengths[static_cast<size_t>(b)];
    const auto keys = of(k).narrow(1, 0, n), values = of(v).narrow(1, 0, n);
    const auto scores = of(q).matmul(keys.transpose(1, 2)) / std::sqrt(static_cast<double>(kWidth));
    samples.push_back(scores.softmax(-1).matmul(values).transpose(0, 1));
  }
  return at::stack(samples, 1).flatten(2);
}

double tolerance(at::ScalarType type) {
  return type == at::kBFloat16 ? 3e-2 : type == at::kFloat ? 5e-6 : 1e-12;
}

TEST(CrossAttentionToAPrompt, CountsTheFirstKeysOfEachSampleOnly) {
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{}, {5, 5}, {1, 4}, {3, 5}}) {
      Case c(type);
      EXPECT_LT(distance(c.run(lengths), plain(c.q, c.k, c.v, lengths)), tolerance(type))
          << c10::toString(type) << " " << ::testing::PrintToString(lengths);
    }
  }
}

TEST(CrossAttentionToAPrompt, IsBlindToPaddingHoweverLargeItIs) {
  Case c(at::kFloat);
  const auto expected = c.run({2, 4});
  c.k.select(1, 0).narrow(0, 2, 3).fill_(1e4), c.v.select(1, 0).narrow(0, 2, 3).fill_(-1e4);
  c.k[4].select(0, 1).fill_(1e4), c.v[4].select(0, 1).fill_(1e4);
  EXPECT_EQ(distance(c.run({2, 4}), expected), 0);
  EXPECT_GT(distance(c.run({3, 4}), expected), 1e-2);
}

TEST(CrossAttentionToAPrompt, NormsQueriesAndKeysAndTurnsTheQueriesAlone) {
  Case c(at::kDouble);
  const HeadNorm norm_q{
      .kind = HeadNorm::NormKind::kLayer, .weight = random({kWidth}), .bias = random({kWidth})};
  const HeadNorm norm_k{.weight = random({kWidth}, at::kDouble, 9)};
  const int64_t axes[] = {2, 2, 4};
  const Rope rope = rope_of(grid_coordinates(kTokens, 1), axes, 100, at::TensorOptions(at::kDouble));
  c.cross.begin(c.context, {.k = c.k, .v = c.v, .norm_k = &norm_k}, {});
  const auto out = c.cross(c.state, {.q = c.q, .norm_q = &norm_q, .rope = &rope});
  const auto centred = c.q - c.q.mean(-1, true);
  const auto q =
      centred / (centred.square().mean(-1, true) + norm_q.eps).sqrt() * norm_q.weight + norm_q.bias;
  const auto pairs = q.unflatten(-1, {-1, 2});
  const auto x = pairs.select(-1, 0), y = pairs.select(-1, 1);
  const auto cos = rope.cos.unsqueeze(1).unsqueeze(1), sin = rope.sin.unsqueeze(1).unsqueeze(1);
  const auto turned = at::stack({x * cos - y * sin, x * sin + y * cos}, -1).flatten(-2);
  const auto k = c.k / (c.k.square().mean(-1, true) + norm_k.eps).sqrt() * norm_k.weight;
  EXPECT_LT(distance(out, plain(turned, k, c.v, {})), 1e-12);
}

TEST(CrossAttentionToAPrompt, ZeroTokensAndZeroHeadsAreLegal) {
  Case c(at::kFloat);
  c.q = c.q.narrow(0, 0, 0);
  EXPECT_EQ(c.run({2, 3}).sizes(), (at::IntArrayRef{0, kBatch, kHeads * kWidth}));
  CrossAttention none(5, Dim{0, kWidth});
  none.begin(c.context, {.k = c.k.narrow(2, 0, 0), .v = c.v.narrow(2, 0, 0)}, {});
  EXPECT_EQ(none(c.state, {.q = random({kTokens, kBatch, 0, kWidth}, at::kFloat)}).sizes(),
            (at::IntArrayRef{kTokens, kBatch, 0}));
}

// Recorded graphs read keys, values and masks from where the first request put them.
TEST(RequestContexts, KeepTheirMemoryForARequestOfTheSameShape) {
  Case first(at::kFloat), second(at::kFloat, 7);
  first.run({2, 3});
  const auto expected = second.run({5, 1});
  RequestContext kept;
  first.context.tables = random({2, 1, 3}), first.context.streams = {random({3, 1, 2})};
  second.context.tables = random({2, 1, 3}, at::kDouble, 5),
  second.context.streams = {random({3, 1, 2}, at::kDouble, 6)};
  kept.assign_(first.context);
  const void *kv = kept.cross.at(4).kv.data_ptr(), *mask = kept.cross.at(4).mask.data_ptr(),
             *tables = kept.tables.data_ptr(), *stream = kept.streams[0].data_ptr();
  kept.assign_(second.context);
  EXPECT_EQ(kept.cross.at(4).kv.data_ptr(), kv);
  EXPECT_EQ(kept.cross.at(4).mask.data_ptr(), mask);
  EXPECT_EQ(kept.tables.data_ptr(), tables);
  EXPECT_EQ(kept.streams[0].data_ptr(), stream);
  State s;
  s.context = &kept;
  EXPECT_EQ(distance(second.cross(s, {.q = second.q}), expected), 0);
  EXPECT_EQ(distance(kept.streams[0], second.context.streams[0]), 0);
}

TEST(RequestContexts, NeverWriteIntoWhatTheyWereGiven) {
  const auto cached = random({3, 1, 2});
  const auto before = cached.clone();
  RequestContext kept, first, second;
  first.streams = {cached};
  second.streams = {random({3, 1, 2}, at::kDouble, 8)};
  kept.assign_(first);
  kept.assign_(second);
  EXPECT_EQ(distance(cached, before), 0) << "the states of a text may be used again";
}

}  // namespace
}  // namespace atelier::nn
