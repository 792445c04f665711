// Products with eight-bit numbers against float, and what stays as it was for dense ones.
#include "nn/product.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

constexpr at::ScalarType kNarrow[] = {at::kFloat8_e4m3fn, at::kFloat8_e5m2, at::kChar};

// Half a step of the type where its numbers are coarsest, relative to a row's largest; e4m3's largest may lie
// anywhere between two powers of two.
double half_step(at::ScalarType type) {
  if (type == at::kChar) return 0.5 / 127;
  return type == at::kFloat8_e4m3fn ? 1.0 / 16 : 4096.0 / 57344;
}

at::Tensor times(std::initializer_list<Activation> x, const Weight& w, const at::Tensor& bias = {}) {
  return product(std::span(x.begin(), x.size()), w, bias);
}

at::Tensor values(const Weight& w) {
  return w.rows().to(at::kDouble) * w.scale().to(at::kDouble);
}

TEST(Quantised, EveryNumberIsWithinHalfAStepOfItsRowsLargest) {
  const auto x = random({5, 40}) * random({5, 1}, at::kDouble, 2).exp() * 100;
  for (const auto type : kNarrow) {
    const auto w = quantised_weight(x, type);
    EXPECT_EQ(w.rows().scalar_type(), type);
    EXPECT_EQ(w.scale().sizes(), (at::IntArrayRef{5, 1}));
    const auto error = (values(w) - x).abs().amax(1) / x.abs().amax(1);
    EXPECT_LT(error.max().item<double>(), half_step(type) * 1.01) << at::toString(type);
    EXPECT_GT(error.max().item<double>(), 0) << at::toString(type);
  }
}

TEST(Quantised, ARowsScaleIsItsOwn) {
  auto x = random({2, 16});
  x[1].mul_(1e4);
  const auto apart = quantised_weight(x.narrow(0, 0, 1), at::kFloat8_e4m3fn),
             both = quantised_weight(x, at::kFloat8_e4m3fn);
  EXPECT_TRUE(both.scale()[0].equal(apart.scale()[0]));
  EXPECT_TRUE(values(both)[0].equal(values(apart)[0]));
}

TEST(Quantised, RowsOfZerosStayZeros) {
  for (const auto type : kNarrow)
    EXPECT_TRUE(values(quantised_weight(at::zeros({2, 4}), type)).equal(at::zeros({2, 4}, at::kDouble)));
}

// As on a rank that holds none of the features.
TEST(Product, OfNoFeaturesIsTheBias) {
  const auto bias = random({3});
  for (const auto& sizes : {std::vector<int64_t>{2, 1, 0}, std::vector<int64_t>{2, 0}}) {
    const auto y = times({at::zeros(sizes, at::kDouble)}, Weight(at::zeros({3, 0}, at::kDouble)), bias);
    EXPECT_EQ(y.size(0), 2);
    EXPECT_TRUE(y.equal(bias.expand_as(y)));
  }
}

// The product is that of the values, however they are stored.
TEST(Product, IsThatOfTheValues) {
  const auto x = random({7, 2, 12}, at::kFloat), w = random({6, 12}, at::kFloat, 2),
             b = random({6}, at::kFloat, 3);
  for (const auto type : kNarrow) {
    const auto narrow = quantised_weight(w, type);
    const auto exact = [&](const at::Tensor& a) {
      return at::linear(a.to(at::kDouble), values(narrow), b.to(at::kDouble));
    };
    EXPECT_LT(distance(times({x}, narrow, b), exact(x)), 3e-6) << at::toString(type);
    const auto rows = quantised(x, type);
    EXPECT_LT(distance(times({rows}, narrow, b), exact(rows)), 3e-6) << at::toString(type);
    EXPECT_GT(distance(times({rows}, narrow, b), at::linear(x, w, b)), 1e-4) << "nothing was quantised";
    EXPECT_LT(distance(times({rows}, narrow, b), at::linear(x, w, b)), 0.5) << at::toString(type);
    EXPECT_EQ(times({rows.rows().narrow(0, 0, 0).to(at::kFloat)}, narrow, b).sizes(),
              (at::IntArrayRef{0, 2, 6}));
  }
}

TEST(Product, ResultsHaveTheModelsType) {
  const auto x = random({3, 12}, at::kBFloat16);
  const auto w = quantised_weight(random({6, 12}, at::kBFloat16, 2), at::kFloat8_e4m3fn);
  EXPECT_EQ(times({x}, w).scalar_type(), at::kBFloat16);
  EXPECT_EQ(times({quantised(x, at::kFloat8_e4m3fn)}, w).scalar_type(), at::kBFloat16);
  EXPECT_LT(distance(times({x}, w), at::linear(x.to(at::kDouble), values(w))), 2e-2);
}

// Segments take their columns of the weight, and the scales of its rows whole.
TEST(Product, SegmentsOfAnEightBitWeightEqualTheirConcatenation) {
  const auto x = random({4, 5}, at::kFloat), y = random({4, 7}, at::kFloat, 2);
  const auto w =
      quantised_weight(random({6, 12}, at::kFloat, 3) * random({6, 1}, at::kFloat, 4).exp(), at::kChar);
  const auto whole = times({at::cat({x, y}, -1)}, w);
  EXPECT_LT(distance(times({x, y}, w), whole), 1e-6);
  EXPECT_LT(distance(times({x}, w.columns(0, 5)) + times({y}, w.columns(5, 7)), whole), 1e-6);
  const auto mixed = times({quantised(x, at::kChar), y}, w);
  EXPECT_GT(distance(mixed, whole), 1e-5);
  EXPECT_LT(distance(mixed, whole), 2e-2);
}

TEST(Product, DenseNumbersAreMultipliedAsBefore) {
  const auto x = random({7, 2, 12}, at::kFloat), w = random({6, 12}, at::kFloat, 2),
             b = random({6}, at::kFloat, 3);
  EXPECT_TRUE(times({x}, w, b).equal(at::linear(x, w, b)));
  EXPECT_TRUE(times({x}, w).equal(at::linear(x, w)));
}

// Half of the product, as another rank of two would hold it.
struct SecondHalf : Reducer {
  at::Tensor other;
  int sums = 0;
  void sum(at::Tensor& value) override {
    ++sums;
    value.add_(other);
  }
};

TEST(SumOfProduct, IsTheProductThenTheSum) {
  const auto x = random({4, 12}), w = random({6, 12}, at::kDouble, 2), b = random({6}, at::kDouble, 3);
  SecondHalf ranks;
  ranks.other = at::linear(x.narrow(1, 5, 7), w.narrow(1, 5, 7));
  const Linear layer(w.narrow(1, 0, 5), b, &ranks);
  EXPECT_LT(distance(layer(x.narrow(1, 0, 5)), at::linear(x, w, b)), 1e-14);
  EXPECT_EQ(ranks.sums, 1);
}

// A strategy that computes the product itself gets what it needs for that, and its result is taken as it is.
struct Overlapped : SecondHalf {
  size_t segments = 0;
  at::Tensor sum_of_product(std::span<const Activation> x, const Weight& w) override {
    segments = x.size();
    auto y = product(x, w, {});
    return y.add_(other);
  }
};

TEST(SumOfProduct, MayBeAStrategysOwn) {
  const auto x = random({4, 12}), w = random({6, 12}, at::kDouble, 2), b = random({6}, at::kDouble, 3);
  Overlapped ranks;
  ranks.other = at::linear(x.narrow(1, 5, 7), w.narrow(1, 5, 7));
  const Linear layer(w.narrow(1, 0, 5), b, &ranks);
  EXPECT_LT(distance(layer({x.narrow(1, 0, 2), x.narrow(1, 2, 3)}), at::linear(x, w, b)), 1e-14);
  EXPECT_EQ(ranks.segments, 2u);
  EXPECT_EQ(ranks.sums, 0);
}

TEST(LinearLayer, GeluOfAnEightBitWeight) {
  const auto x = random({7, 12}, at::kFloat), b = random({6}, at::kFloat, 3);
  const auto w = quantised_weight(random({6, 12}, at::kFloat, 2), at::kChar);
  const auto dense = values(w).to(at::kFloat);
  EXPECT_LT(distance(Linear(w, b, nullptr).gelu(x), Linear(dense, b, nullptr).gelu(x)), 3e-6);
}

TEST(LinearLayer, PartsGatesAndSumsOfAnEightBitWeight) {
  const auto x = random({7, 12}, at::kFloat), b = random({6}, at::kFloat, 3),
             y = random({7, 6}, at::kFloat, 4);
  const auto w = quantised_weight(random({6, 12}, at::kFloat, 2), at::kChar);
  const auto dense = values(w).to(at::kFloat), whole = at::linear(x, dense, b);
  const auto parts = Linear(w, b, nullptr).parts(x, 3);
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_LT(distance(at::cat(parts, -1), whole), 3e-6);
  EXPECT_LT(distance(Linear(w, b, nullptr).gated_gelu(x, GatedGelu::kTanhFirst),
                     Linear(dense, b, nullptr).gated_gelu(x, kernels::GatedGelu::kTanhFirst)),
            3e-6);
  const auto sum = y.clone();
  Linear(w, at::Tensor(), nullptr).add_to_(sum, x);
  EXPECT_LT(distance(sum, y + at::linear(x, dense)), 3e-6);
}

TEST(LinearLayer, PartsOfADenseWeightAreProductsOfTheirOwn) {
  const auto x = random({7, 12}, at::kFloat), w = random({6, 12}, at::kFloat, 2),
             b = random({6}, at::kFloat, 3);
  const auto parts = Linear(w, b, nullptr).parts(x, 2);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(parts[1].equal(at::linear(x, w.narrow(0, 3, 3), b.narrow(0, 3, 3))));
}

}  // namespace
}  // namespace atelier::nn
