// The layers against plain formulas in double, and cut in pieces against themselves whole.
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <complex>
#include <numbers>
#include <vector>

#include "nn/conv.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/patchify.h"
#include "nn/rope.h"
#include "nn/state.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

const at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};

// Of one rounding to the type, relative to the rms of values that reach a few times it.
double rounding(at::ScalarType type) {
  if (type == at::kBFloat16) return 2e-2;
  if (type == at::kHalf) return 3e-3;
  return type == at::kFloat ? 2e-6 : 1e-13;
}

TEST(Rope, TurnsEachPairByPositionTimesFrequency) {
  const auto at = at::tensor({0, 3, 5, 0, 1, 40, 0, 7, 0}, at::TensorOptions(at::kLong)).view({3, 3});
  const int64_t axes[] = {4, 6, 2};
  const Rope r = rope_of(at, axes, 10000.0, at::TensorOptions(at::kDouble));
  ASSERT_EQ(r.cos.sizes(), (at::IntArrayRef{3, 6}));
  const auto* position = at.const_data_ptr<int64_t>();
  for (int64_t token = 0; token < 3; ++token) {
    int64_t pair = 0;
    for (int64_t axis = 0; axis < 3; ++axis) {
      for (int64_t i = 0; i < axes[axis] / 2; ++i, ++pair) {
        // e^(i * position / theta^(2i/d)) = (e^(i position))^(1/theta^(2i/d)), by a power of a complex
        // number's log
        const double rate =
            std::exp(-std::log(10000.0) * 2.0 * static_cast<double>(i) / static_cast<double>(axes[axis]));
        const auto turn = std::polar(1.0, static_cast<double>(position[token * 3 + axis]) * rate);
        EXPECT_NEAR(r.cos[token][pair].item<double>(), turn.real(), 1e-12) << token << " " << pair;
        EXPECT_NEAR(r.sin[token][pair].item<double>(), turn.imag(), 1e-12) << token << " " << pair;
      }
    }
  }
}

TEST(Rope, AnglesAreComputedInDoubleWhateverTheModelComputesIn) {
  const auto at = at::tensor({4095, 100000}, at::TensorOptions(at::kLong)).view({2, 1});
  const int64_t axes[] = {16};
  const Rope narrow = rope_of(at, axes, 10000.0, at::TensorOptions(at::kBFloat16));
  const Rope wide = rope_of(at, axes, 10000.0, at::TensorOptions(at::kDouble));
  EXPECT_EQ(narrow.cos.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(narrow.cos, wide.cos.to(at::kFloat)));
  EXPECT_TRUE(at::equal(narrow.sin, wide.sin.to(at::kFloat)));
  EXPECT_TRUE(narrow.cos.is_contiguous());
}

// Adds a fixed tensor, as if another rank's products came in.
struct OtherRank : Reducer {
  at::Tensor other;
  int calls = 0;
  void sum(at::Tensor& value) override {
    ++calls;
    value.add_(other);
  }
};

TEST(LinearLayer, SegmentsEqualTheirConcatenation) {
  const auto w = random({6, 9}), b = random({6}, at::kDouble, 2);
  const auto x = random({4, 2, 5}, at::kDouble, 3), y = random({4, 2, 4}, at::kDouble, 4);
  for (const auto& bias : {b, at::Tensor()}) {
    const Linear layer(w, bias, nullptr);
    EXPECT_LT(distance(layer({x, y}), layer(at::cat({x, y}, -1))), 1e-14);
    EXPECT_LT(
        distance(layer({x.narrow(0, 0, 0), y.narrow(0, 0, 0)}), layer(at::cat({x, y}, -1)).narrow(0, 0, 0)),
        1e-14);
  }
}

TEST(LinearLayer, SegmentsThatDoNotFillTheWeightAreABug) {
  const Linear layer(random({6, 9}), {}, nullptr);
  EXPECT_THROW(layer({random({4, 5})}), std::logic_error);
}

TEST(LinearLayer, ASumOverRanksComesBeforeTheBiasAndOnce) {
  const auto w = random({6, 9}), b = random({6}, at::kDouble, 2), x = random({4, 9}, at::kDouble, 3);
  const auto whole = at::matmul(x, w.t()) + b;
  const auto left = x.narrow(1, 0, 4), right = x.narrow(1, 4, 5);
  OtherRank sum;
  sum.other = at::matmul(right, w.narrow(1, 4, 5).t());
  const Linear layer(w.narrow(1, 0, 4).contiguous(), b, &sum);
  EXPECT_LT(distance(layer(left), whole), 1e-14);
  EXPECT_LT(distance(layer({left.narrow(1, 0, 1), left.narrow(1, 1, 3)}), whole), 1e-14);
  EXPECT_EQ(sum.calls, 2);
}

TEST(LinearLayer, GeluIsTheTanhForm) {
  const auto w = random({8, 5}), b = random({8}, at::kDouble, 2), x = 2 * random({7, 2, 5}, at::kDouble, 3);
  const auto plain = at::matmul(x, w.t());
  const auto expected = [&](const at::Tensor& v) {
    const double c = std::sqrt(2.0 / std::numbers::pi);
    return 0.5 * v * (1 + (c * (v + 0.044715 * v * v * v)).tanh());
  };
  EXPECT_LT(distance(Linear(w, b, nullptr).gelu(x), expected(plain + b)), 1e-13);
  EXPECT_LT(distance(Linear(w, {}, nullptr).gelu(x), expected(plain)), 1e-13);
  EXPECT_GT(distance(expected(plain + b), at::gelu(plain + b)), 1e-5)
      << "the two forms of gelu cannot be told apart";
  EXPECT_EQ(Linear(w, b, nullptr).gelu(x.narrow(0, 0, 0)).sizes(), (at::IntArrayRef{0, 2, 8}));
}

struct ModulatedCase {
  at::Tensor x, shift, scale;  // [n, B, C], views [B, C] of a longer row
};

ModulatedCase modulated_case(int64_t n, at::ScalarType type) {
  const auto row =
      random({2, 24}, type, 5);  // one row of tables; 24 channels of which the layers take 8 each
  return {(3 * random({n, 2, 8}, at::kDouble, 6) + 1).to(type), row.narrow(1, 3, 8), row.narrow(1, 11, 8)};
}

TEST(Norms, NormModulatesAPlainLayerNorm) {
  for (const auto type : kTypes) {
    for (const int64_t n : {0, 1, 37}) {
      const auto c = modulated_case(n, type);
      const auto x = c.x.to(at::kDouble);
      const auto centred = x - x.mean(-1, true);
      const auto normal = centred / (centred.square().mean(-1, true) + 1e-6).sqrt();
      const auto expected = normal * (1 + c.scale.to(at::kDouble)) + c.shift.to(at::kDouble);
      EXPECT_LT(distance(norm(c.x, {c.shift, c.scale, {}}), expected), rounding(type))
          << c10::toString(type) << " " << n;
    }
  }
}

TEST(Norms, GatedAddsInPlaceAlsoToAView) {
  for (const auto type : kTypes) {
    const auto c = modulated_case(9, type);
    const auto y = random({5, 2, 8}, type, 7);
    auto x = c.x.clone();
    const auto expected = x.narrow(0, 2, 5).to(at::kDouble) + c.scale.to(at::kDouble) * y.to(at::kDouble);
    gated_(x.narrow(0, 2, 5), c.scale, y);
    EXPECT_LT(distance(x.narrow(0, 2, 5), expected), rounding(type)) << c10::toString(type);
    EXPECT_TRUE(at::equal(x.narrow(0, 0, 2), c.x.narrow(0, 0, 2)));
    EXPECT_TRUE(at::equal(x.narrow(0, 7, 2), c.x.narrow(0, 7, 2)));
  }
}

TEST(Norms, RmsNormHasNoMeanAndSquaresInFloat) {
  const auto weight = random({8}, at::kDouble, 8), x = 2 + random({5, 8}, at::kDouble, 9);
  const auto expected = x / (x.square().mean(-1, true) + 1e-3).sqrt() * weight;
  EXPECT_LT(distance(RmsNorm{weight, 1e-3}(x), expected), 1e-13);
  // 300 squared is beyond what 16 bits hold
  const auto large = at::full({1, 8}, 300.0, at::TensorOptions(at::kHalf));
  EXPECT_LT(
      distance(RmsNorm{at::full({8}, 1.0, at::TensorOptions(at::kHalf)), 1e-6}(large), at::full({1, 8}, 1.0)),
      1e-3);
}

// Two passes: first every rank's moments are noted, then each gets their sum.
struct NotedSum : Reducer {
  std::vector<at::Tensor> seen;
  bool replay = false;
  void sum(at::Tensor& value) override {
    if (!replay) return seen.push_back(value.clone());
    value.zero_();
    for (const auto& one : seen) value.add_(one);
  }
};

TEST(GroupNormLayer, RowsOfSeveralRanksShareTheirMoments) {
  for (const auto type : {at::kDouble, at::kFloat}) {
    const auto weight = random({6}, type, 10), bias = random({6}, type, 11);
    // a mean far from zero: one-pass moments must not cancel
    const auto x = (random({2, 6, 7, 5}, at::kDouble, 12) + 30).to(type);
    const auto whole =
        at::group_norm(x.to(at::kDouble), 3, weight.to(at::kDouble), bias.to(at::kDouble), 1e-6);
    const Range cut[] = {{0, 4}, {4, 0}, {4, 3}};
    NotedSum sum;
    const GroupNorm layer(weight, bias, 3, 1e-6, &sum);
    for (const Range& r : cut) layer(x.narrow(2, r.begin, r.size));
    sum.replay = true;
    for (const Range& r : cut) {
      const auto part = layer(x.narrow(2, r.begin, r.size));
      EXPECT_EQ(part.scalar_type(), type);
      EXPECT_LT(distance(part, whole.narrow(2, r.begin, r.size)), type == at::kDouble ? 1e-10 : 2e-5);
    }
  }
}

// Knows the whole picture and where this rank's rows begin.
struct KnownRows : RowHalo {
  at::Tensor whole;
  int64_t begin = 0;
  at::Tensor pad(const at::Tensor& x, int64_t above, int64_t below) override {
    const auto edge = [&](int64_t n) {
      return at::zeros({whole.size(0), whole.size(1), n, whole.size(3)}, whole.options());
    };
    const auto tall = at::cat({edge(above), whole, edge(below)}, 2);
    return tall.narrow(2, begin, above + x.size(2) + below);
  }
};

// Each rank's rows of the output are those of the whole picture's.
void expect_cut_equals_whole(ConvShape shape, int64_t rows, const std::vector<Range>& cut) {
  const auto x = random({2, 3, rows, 6}, at::kDouble, 13);
  const auto w = random({4, 3, shape.kernel, shape.kernel}, at::kDouble, 14),
             b = random({4}, at::kDouble, 15);
  const auto whole = Conv2d(w, b, shape, nullptr)(x);
  ASSERT_EQ(whole.size(2), rows / shape.stride);
  KnownRows halo;
  halo.whole = x;
  const Conv2d layer(w, b, shape, &halo);
  for (const Range& r : cut) {
    halo.begin = r.begin;
    const auto part = layer(x.narrow(2, r.begin, r.size));
    EXPECT_LT(distance(part, whole.narrow(2, r.begin / shape.stride, r.size / shape.stride)), 1e-13)
        << "rows " << r.begin << " to " << r.end() << " of " << rows;
  }
}

constexpr ConvShape kPoint{.kernel = 1, .above = 0, .below = 0, .left = 0, .right = 0};
constexpr ConvShape kHalve{.kernel = 3, .stride = 2, .above = 0, .below = 1, .left = 0, .right = 1};

TEST(Conv2dLayer, UnevenRowsWithHalosEqualTheWholePicture) {
  expect_cut_equals_whole({}, 7, {{0, 3}, {3, 3}, {6, 1}});
  expect_cut_equals_whole(kPoint, 7, {{0, 5}, {5, 2}});
  expect_cut_equals_whole(kHalve, 14, {{0, 6}, {6, 4}, {10, 4}});
}

TEST(Conv2dLayer, ARankWithoutRowsGetsNone) {
  expect_cut_equals_whole({}, 2, {{0, 1}, {1, 1}, {2, 0}});
  expect_cut_equals_whole(kPoint, 2, {{0, 2}, {2, 0}});
  expect_cut_equals_whole(kHalve, 4, {{0, 2}, {2, 2}, {4, 0}});
}

TEST(Conv2dLayer, PadsBelowAndRightOnlyWhereAsked) {
  const auto x = random({1, 1, 4, 4}), w = random({1, 1, 3, 3}, at::kDouble, 2);
  const auto out = Conv2d(w, at::zeros({1}, at::TensorOptions(at::kDouble)), kHalve, nullptr)(x);
  const auto first = (x.narrow(2, 0, 3).narrow(3, 0, 3) * w).sum().item<double>();
  EXPECT_NEAR(out[0][0][0][0].item<double>(), first, 1e-13);
  const auto last =
      (x.narrow(2, 2, 2).narrow(3, 2, 2) * w.narrow(2, 0, 2).narrow(3, 0, 2)).sum().item<double>();
  EXPECT_NEAR(out[0][0][1][1].item<double>(), last, 1e-13);
}

TEST(Upsample, RepeatsEveryPixel) {
  const auto x = random({2, 3, 2, 4});
  const auto expected = x.repeat_interleave(2, 2).repeat_interleave(2, 3);
  EXPECT_TRUE(at::equal(upsample2(x), expected));
  EXPECT_EQ(upsample2(x.narrow(2, 0, 0)).sizes(), (at::IntArrayRef{2, 3, 0, 8}));
}

TEST(Sinusoid, HoldsCosinesThenSines) {
  const auto s = sinusoid(at::tensor({0.0f, 1.0f, 500.0f}), 8);
  ASSERT_EQ(s.sizes(), (at::IntArrayRef{3, 8}));
  EXPECT_EQ(s.scalar_type(), at::kFloat);
  const double values[] = {0, 1, 500};
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t i = 0; i < 4; ++i) {
      const double angle = values[row] * std::pow(10.0, -static_cast<double>(i));  // 10000^(-i/4)
      EXPECT_NEAR(s[row][i].item<double>(), std::cos(angle), 3e-5) << row << " " << i;
      EXPECT_NEAR(s[row][4 + i].item<double>(), std::sin(angle), 3e-5) << row << " " << i;
    }
  }
}

TEST(Patchify, UnpackIsTheInverseOfPack) {
  const auto picture = random({2, 5, 6, 8});
  const auto tokens = pack_2x2(picture);
  EXPECT_EQ(tokens.sizes(), (at::IntArrayRef{12, 2, 20}));
  EXPECT_TRUE(at::equal(unpack_2x2(tokens, 3, 4), picture));
}

TEST(Patchify, ATokenHoldsItsPixelsChannelByChannel) {
  const auto picture = random({1, 3, 4, 6});
  const auto tokens = pack_2x2(picture);
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t col = 0; col < 3; ++col) {
      for (int64_t k = 0; k < 12; ++k) {
        const auto pixel = picture[0][k / 4][2 * row + k / 2 % 2][2 * col + k % 2];
        EXPECT_EQ(tokens[row * 3 + col][0][k].item<double>(), pixel.item<double>());
      }
    }
  }
}

TEST(Patchify, CoordinatesFollowTheTokens) {
  const auto at = grid_coordinates(2, 3);
  const auto expected =
      at::tensor({0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 1, 0, 1, 2}, at::TensorOptions(at::kLong));
  EXPECT_TRUE(at::equal(at, expected.view({6, 3})));
}

TEST(BuilderOfLayers, SlicesOfAllRanksMakeTheWholeLayer) {
  const auto qkv = random({18, 4}), bias = random({18}, at::kDouble, 2),
             out = random({4, 11}, at::kDouble, 3);
  const PlantedStore store({{"b.qkv.weight", qkv}, {"b.qkv.bias", bias}, {"b.out.weight", out}});
  const auto x = random({5, 1, 4}, at::kDouble, 4), wide = random({5, 1, 11}, at::kDouble, 5);
  at::Tensor sum;
  std::vector<at::Tensor> q, k, v;
  for (int rank = 0; rank < 2; ++rank) {
    SingleRank one(rank, 2);
    const auto b = one.builder(store, at::TensorOptions(at::kDouble)) / "b";
    // three heads of two channels: 2 + 1
    const auto y = b.expand("qkv", 4, {Dim{3, 2}, Dim{3, 2}, Dim{3, 2}})(x).chunk(3, -1);
    q.push_back(y[0]), k.push_back(y[1]), v.push_back(y[2]);
    const Range heads = Partition{3, 2}[rank], rest = Partition{5, 2}[rank];
    const auto mine = b.contract("out", {Dim{3, 2}, Dim{5}}, 4, Bias::kNo)(
        {wide.narrow(-1, 2 * heads.begin, 2 * heads.size), wide.narrow(-1, 6 + rest.begin, rest.size)});
    sum = rank == 0 ? mine : sum + mine;
  }
  q.insert(q.end(), k.begin(), k.end()), q.insert(q.end(), v.begin(), v.end());
  EXPECT_LT(distance(at::cat(q, -1), at::matmul(x, qkv.t()) + bias), 1e-14);
  EXPECT_LT(distance(sum, at::matmul(wide, out.t())), 1e-14);
  EXPECT_TRUE(store.missing.empty());
}

}  // namespace
}  // namespace atelier::nn
