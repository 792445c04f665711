// The attention of one rank, from raw projections to the result, against loops in double.
#include "nn/attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/square.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "nn/builder.h"
#include "nn/patchify.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

constexpr int64_t kBatch = 2, kHeads = 3, kWidth = 16;
const at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16};

double tolerance(at::ScalarType type) {
  return type == at::kBFloat16 ? 3e-2 : type == at::kFloat ? 5e-6 : 1e-12;
}

// x [n, B, h, d] in double: rms norm over d, then each pair (2i, 2i+1) turned by its token's angle.
at::Tensor prepared(const at::Tensor& x, const HeadNorm& norm, const Rope& rope) {
  auto out = at::empty(x.sizes(), at::TensorOptions(at::kDouble));
  const auto in = x.to(at::kDouble).contiguous(), weight = norm.weight.to(at::kDouble);
  const auto cos = rope.cos.to(at::kDouble), sin = rope.sin.to(at::kDouble);
  const int64_t rows = x.size(0) * x.size(1) * x.size(2), d = x.size(3);
  const double *from = in.const_data_ptr<double>(), *w = weight.const_data_ptr<double>();
  double* to = out.data_ptr<double>();
  for (int64_t r = 0; r < rows; ++r, from += d, to += d) {
    const int64_t token = r / (x.size(1) * x.size(2));
    double squares = 0;
    for (int64_t i = 0; i < d; ++i) squares += from[i] * from[i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + norm.eps);
    for (int64_t i = 0; i < d; i += 2) {
      const double a = from[i] * scale * w[i], b = from[i + 1] * scale * w[i + 1];
      const double c = cos[token][i / 2].item<double>(), s = sin[token][i / 2].item<double>();
      to[i] = a * c - b * s;
      to[i + 1] = a * s + b * c;
    }
  }
  return out;
}

struct Plain {
  at::Tensor out;  // [queries, B, h, d]
  at::Tensor lse;  // [B, h, queries]
};

// q [Nq, B, h, d], k, v [N, B, h, d].
Plain plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto heads_first = [](const at::Tensor& t) { return t.to(at::kDouble).permute({1, 2, 0, 3}); };
  const auto scores =
      heads_first(q).matmul(heads_first(k).transpose(-1, -2)) / std::sqrt(static_cast<double>(q.size(3)));
  const auto weights = (scores - std::get<0>(scores.max(-1, true))).exp();
  const auto out = weights.matmul(heads_first(v)) / weights.sum(-1, true);
  return {out.permute({2, 0, 1, 3}), scores.exp().sum(-1).log()};
}

struct Stream {
  at::Tensor fused;  // [n, B, 3 * h * d]
  HeadNorm norm_q, norm_k;
  Rope rope;
  Stream(int64_t n, at::ScalarType type, uint64_t seed) {
    fused = random({n, kBatch, 3 * kHeads * kWidth}, type, seed);
    norm_q.weight = 1 + random({kWidth}, type, seed + 1), norm_q.eps = 1e-3;
    norm_k.weight = 1 + random({kWidth}, type, seed + 2), norm_k.eps = 1e-2;
    const int64_t axes[] = {4, 6, 6};
    rope = rope_of(grid_coordinates(n, 1) + 3, axes, 10000.0, at::TensorOptions(type));
  }
  Projected projected() const { return split_qkv(fused, kWidth, norm_q, norm_k, rope); }
};

CallContext frame_of(const std::vector<int64_t>& tokens) {
  CallContext f;
  for (const int64_t n : tokens) f.streams.push_back({.patches = {n, 1}});
  return f;
}

Attention attention_of(SingleRank& one, std::vector<int> streams, std::vector<int> query_streams) {
  return {AttentionLayer{0, "attn", std::move(streams), std::move(query_streams), Dim{kHeads, kWidth}},
          one.seams};
}

TEST(AttentionOfOneRank, TwoStreamsAttendToEachOther) {
  for (const auto type : kTypes) {
    const Stream text(5, type, 20), image(11, type, 30);
    SingleRank one;
    const CallContext f = frame_of({5, 11});
    const auto out = attention_of(one, {0, 1}, {0, 1})(f, {text.projected(), image.projected()});
    const auto t = text.projected(), i = image.projected();
    const auto expected = plain_attention(
        at::cat({prepared(t.q, text.norm_q, text.rope), prepared(i.q, image.norm_q, image.rope)}),
        at::cat({prepared(t.k, text.norm_k, text.rope), prepared(i.k, image.norm_k, image.rope)}),
        at::cat({t.v, i.v}));
    EXPECT_EQ(out.sizes(), (at::IntArrayRef{16, kBatch, kHeads * kWidth}));
    EXPECT_LT(distance(out, expected.out.flatten(2)), tolerance(type)) << c10::toString(type);
  }
}

TEST(AttentionOfOneRank, AStreamThatDoesNotAskStillGivesItsKeys) {
  const Stream text(5, at::kDouble, 20), image(11, at::kDouble, 30);
  SingleRank one;
  auto t = text.projected();
  const auto i = image.projected();
  const auto keys = at::cat({prepared(t.k, text.norm_k, text.rope), prepared(i.k, image.norm_k, image.rope)});
  const auto expected = plain_attention(prepared(i.q, image.norm_q, image.rope), keys, at::cat({t.v, i.v}));
  t.q = at::Tensor();
  const auto out = attention_of(one, {0, 1}, {1})(frame_of({5, 11}), {t, i});
  EXPECT_LT(distance(out, expected.out.flatten(2)), 1e-12);
}

TEST(AttentionOfOneRank, StartedOnesMayFinishInAnyOrder) {
  const Stream a(7, at::kDouble, 40), b(9, at::kDouble, 50);
  SingleRank one;
  const CallContext f = frame_of({7}), g = frame_of({9});
  const auto attend = attention_of(one, {0}, {0});
  const auto alone_a = attend(f, {a.projected()}), alone_b = attend(g, {b.projected()});
  auto first = attend.start(f, {a.projected()});
  auto second = attend.start(g, {b.projected()});
  EXPECT_EQ(distance(attend.finish(std::move(second)), alone_b), 0);
  EXPECT_EQ(distance(attend.finish(std::move(first)), alone_a), 0);
}

TEST(AttentionOfOneRank, NormsAndRopeMayBeAbsent) {
  const auto q = random({6, kBatch, kHeads, kWidth}), k = random(q.sizes(), at::kDouble, 2),
             v = random(q.sizes(), at::kDouble, 3);
  SingleRank one;
  const auto out = attention_of(one, {0}, {0})(frame_of({6}), {Projected{q, k, v}});
  EXPECT_LT(distance(out, plain_attention(q, k, v).out.flatten(2)), 1e-12);
}

// Widths that the placing kernel does not have.
TEST(AttentionOfOneRank, HeadsMayBeOddOrVeryWide) {
  for (const int64_t width : {1, 5, 9, 257, 300}) {
    for (const auto type : kTypes) {
      const std::vector<int64_t> sizes{6, kBatch, kHeads, width};
      const auto q = random(sizes, type), k = random(sizes, type, 2), v = random(sizes, type, 3);
      SingleRank one;
      const Attention attend{AttentionLayer{0, "attn", {0}, {0}, Dim{kHeads, width}}, one.seams};
      const auto plain = plain_attention(q, k, v).out.flatten(2);
      EXPECT_LT(distance(attend(frame_of({6}), {Projected{q, k, v}}), plain), tolerance(type)) << width;
      for (const auto kind : {HeadNorm::NormKind::kRms, HeadNorm::NormKind::kLayer}) {
        const bool is_layer = kind == HeadNorm::NormKind::kLayer;
        const HeadNorm norm{kind, 1 + random({width}, type, 4),
                            is_layer ? random({width}, type, 5) : at::Tensor(), 1e-3};
        const auto normed = [&](const at::Tensor& t) {
          auto x = t.to(at::kDouble);
          if (is_layer) x = x - x.mean(-1, true);
          x = x / (x.square().mean(-1, true) + norm.eps).sqrt() * norm.weight.to(at::kDouble);
          return is_layer ? x + norm.bias.to(at::kDouble) : x;
        };
        const auto out = attend(frame_of({6}), {Projected{q, k, v, &norm, &norm}});
        EXPECT_LT(distance(out, plain_attention(normed(q), normed(k), v).out.flatten(2)), 2 * tolerance(type))
            << width;
      }
    }
  }
}

TEST(AttentionOfOneRank, ZeroTokensAreLegal) {
  for (const auto type : kTypes) {
    const Stream none(0, type, 20), image(4, type, 30);
    SingleRank one;
    const auto i = image.projected();
    const auto keys = prepared(i.k, image.norm_k, image.rope);
    const auto expected = plain_attention(prepared(i.q, image.norm_q, image.rope), keys, i.v);
    const auto out = attention_of(one, {0, 1}, {0, 1})(frame_of({0, 4}), {none.projected(), i});
    EXPECT_LT(distance(out, expected.out.flatten(2)), tolerance(type));
    const auto nothing = attention_of(one, {0}, {0})(frame_of({0}), {none.projected()});
    EXPECT_EQ(nothing.sizes(), (at::IntArrayRef{0, kBatch, kHeads * kWidth}));
  }
}

Attention e4m3_attention_of(SingleRank& one, at::ScalarType type) {
  AttentionLayer layer{0, "attn", {0, 1}, {0, 1}, Dim{kHeads, kWidth}};
  layer.is_e4m3 = true, layer.model_type = type;
  return {std::move(layer), one.seams};
}

// Attention to the values that are left, in the model's type.
TEST(AttentionOfOneRank, InE4m3AttendsToRoundedNumbers) {
  for (const auto type : kTypes) {
    const Stream text(5, type, 20), image(11, type, 30);
    SingleRank one;
    const auto out = e4m3_attention_of(one, type)(frame_of({5, 11}), {text.projected(), image.projected()});
    const auto t = text.projected(), i = image.projected();
    const auto rounded = [](const at::Tensor& x) {
      return x.to(at::kFloat).to(at::kFloat8_e4m3fn).to(at::kDouble);
    };
    const auto expected = plain_attention(
        rounded(at::cat({prepared(t.q, text.norm_q, text.rope), prepared(i.q, image.norm_q, image.rope)})),
        rounded(at::cat({prepared(t.k, text.norm_k, text.rope), prepared(i.k, image.norm_k, image.rope)})),
        rounded(at::cat({t.v, i.v})));
    EXPECT_EQ(out.scalar_type(), type);
    EXPECT_EQ(out.sizes(), (at::IntArrayRef{16, kBatch, kHeads * kWidth}));
    EXPECT_LT(distance(out, expected.out.flatten(2)), tolerance(type)) << c10::toString(type);
    const auto exact = attention_of(one, {0, 1}, {0, 1})(frame_of({5, 11}), {t, i});
    EXPECT_GT(distance(out, exact), 1e-3) << "nothing was rounded";
    EXPECT_LT(distance(out, exact), 1);
    EXPECT_EQ(one.attention.used().size(), 2u) << "reports tell e4m3 apart";
  }
}

TEST(AttentionOfOneRank, AFrameThatCountsOtherTokensIsABug) {
  const Stream image(4, at::kDouble, 30);
  SingleRank one;
  EXPECT_THROW(attention_of(one, {0}, {0})(frame_of({5}), {image.projected()}), std::logic_error);
}

TEST(AttentionDtype, IsOfBlocksWhoseHeadsHaveTheWidth) {
  const PlantedStore store({});
  Resident memory;
  SingleRank one;
  const Builder model(store, one.seams, memory, at::TensorOptions(at::kDouble));
  const auto b = model.of_attention(AttentionDtype::kFp8E4m3);
  const auto q = random({6, kBatch, kHeads, kWidth}), k = random(q.sizes(), at::kDouble, 2),
             v = random(q.sizes(), at::kDouble, 3);
  const auto run = [&](const Builder& of) {
    return of.attention("a", {0}, Dim{kHeads, kWidth})(frame_of({6}), {Projected{q, k, v}});
  };
  const auto exact = run(model.block(0)), rounded = run(b.block(0));
  EXPECT_GT(distance(rounded, exact), 1e-3);
  EXPECT_EQ(rounded.scalar_type(), at::kDouble);
  EXPECT_EQ(distance(run(b), exact), 0) << "in no block";
  b.block(1).attention("odd", {0}, Dim{kHeads, 24});
  EXPECT_EQ(b.attentions().e4m3, 1);
  EXPECT_EQ(b.attentions().dense, 2) << "of block 0 as it was, and of heads of 24";
}

TEST(SdpaKernel, GivesTheLogOfTheSumOfExponentials) {
  for (const auto type : kTypes) {
    for (const auto backend : {SdpaBackend::kAuto, SdpaBackend::kMath}) {
      const auto q = random({33, kBatch, kHeads, kWidth}, type, 60),
                 kv = random({70, kBatch, 2, kHeads, kWidth}, type, 61);
      Sdpa sdpa(backend);
      const auto a = sdpa.run({}, {}, {}, q, kv, Lse::kNeeded);
      const auto expected = plain_attention(q, kv.select(2, 0), kv.select(2, 1));
      EXPECT_TRUE(a.out.is_contiguous());
      EXPECT_EQ(a.out.scalar_type(), type);
      EXPECT_EQ(a.lse.scalar_type(), type == at::kDouble ? at::kDouble : at::kFloat);
      EXPECT_LT(distance(a.out, expected.out), tolerance(type)) << c10::toString(type);
      EXPECT_LT(distance(a.lse, expected.lse), tolerance(type)) << c10::toString(type);
      EXPECT_EQ(sdpa.used().size(), 1u);
    }
  }
}

TEST(SdpaKernel, TakesE4m3AsItsValues) {
  for (const auto type : kTypes) {
    for (const auto backend : {SdpaBackend::kAuto, SdpaBackend::kMath, SdpaBackend::kFlash3}) {
      AttentionLayer layer;
      layer.is_e4m3 = true, layer.model_type = type;
      const auto q = random({33, kBatch, kHeads, kWidth}, at::kFloat, 60).to(at::kFloat8_e4m3fn),
                 kv = random({70, kBatch, 2, kHeads, kWidth}, at::kFloat, 61).to(at::kFloat8_e4m3fn);
      Sdpa sdpa(backend);
      const auto a = sdpa.run({}, layer, {}, q, kv, Lse::kNeeded);
      const auto b = sdpa.run({}, {}, {}, q.to(type), kv.to(type), Lse::kNeeded);
      EXPECT_EQ(a.out.scalar_type(), type);
      EXPECT_TRUE(a.out.equal(b.out) && a.lse.equal(b.lse)) << c10::toString(type);
      const auto none = sdpa.run({}, layer, {}, q, kv.narrow(0, 0, 0), Lse::kNeeded);
      EXPECT_EQ(none.out.scalar_type(), type);
      EXPECT_THROW(sdpa.run({}, {}, {}, q, kv, Lse::kNone), std::logic_error) << "of a layer in another type";
    }
  }
}

TEST(SdpaKernel, NoKeysWeighNothing) {
  const auto q = random({3, kBatch, kHeads, kWidth}, at::kFloat);
  const auto none = random({0, kBatch, 2, kHeads, kWidth}, at::kFloat);
  Sdpa sdpa;
  const auto a = sdpa.run({}, {}, {}, q, none, Lse::kNeeded);
  EXPECT_EQ(a.out.sizes(), q.sizes());
  EXPECT_EQ(a.out.abs().max().item<float>(), 0);
  EXPECT_EQ(a.lse.sizes(), (at::IntArrayRef{kBatch, kHeads, 3}));
  EXPECT_EQ(a.lse.max().item<float>(), -INFINITY);
  const auto b = sdpa.run({}, {}, {}, q.narrow(0, 0, 0), random({5, kBatch, 2, kHeads, kWidth}, at::kFloat),
                          Lse::kNeeded);
  EXPECT_EQ(b.out.sizes(), (at::IntArrayRef{0, kBatch, kHeads, kWidth}));
  EXPECT_EQ(b.lse.sizes(), (at::IntArrayRef{kBatch, kHeads, 0}));
}

TEST(SdpaKernel, AttendAddsTheBiasToScaledScores) {
  const auto q = random({kBatch, kHeads, 5, kWidth}), k = random({kBatch, kHeads, 7, kWidth}, at::kDouble, 2);
  const auto v = random({kBatch, kHeads, 7, kWidth}, at::kDouble, 3),
             bias = random({1, kHeads, 5, 7}, at::kDouble, 4);
  const auto scores = 0.7 * q.matmul(k.transpose(-1, -2));
  const auto expected = [&](const at::Tensor& s) { return at::softmax(s, -1).matmul(v); };
  EXPECT_LT(distance(attend(q, k, v, bias, 0.7), expected(scores + bias)), 1e-12);
  EXPECT_LT(distance(attend(q, k, v, {}, 0.7), expected(scores)), 1e-12);
}

}  // namespace
}  // namespace atelier::nn
