// The CPU twin of place against a naive double-precision reference: widths, splits, strides, norms, every
// type.
#include <algorithm>
#include <stdexcept>

#include "kernels/place_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

void* host(Buffer& b, int64_t at) {
  return b.data(at);
}

// Head h of source `which` (0 q, 1 k, 2 v) at token n, batch index b, as it must arrive.
std::vector<double> expected(const PlaceCase& c, const PlaceData& data, int which, int64_t n, int64_t b,
                             int64_t h) {
  std::vector<double> v(static_cast<size_t>(c.dim));
  const int64_t from = c.skew + (n * c.batch + b) * data.row + (which * c.heads + h) * c.dim;
  for (int64_t i = 0; i < c.dim; ++i) v[i] = data.fused[from + i];
  if (which == 2) return v;
  const auto d = static_cast<double>(c.dim);
  if (c.norm != Norm::kNone) {
    double mean = 0, variance = 0;
    if (c.norm == Norm::kLayer) {
      for (const double x : v) mean += x / d;
    }
    for (const double x : v) variance += (x - mean) * (x - mean) / d;
    const Buffer &weight = which == 0 ? data.weight_q : data.weight_k,
                 &bias = which == 0 ? data.bias_q : data.bias_k;
    for (int64_t i = 0; i < c.dim; ++i) {
      v[i] = (v[i] - mean) / std::sqrt(variance + (which == 0 ? 1e-6 : 1e-5));
      if (c.weights) v[i] = v[i] * weight[i] + (c.norm == Norm::kLayer ? bias[i] : 0);
    }
  }
  for (int64_t i = 0; c.rope && i < c.dim / 2; ++i) {
    const double cos = data.cos[n * c.dim / 2 + i], sin = data.sin[n * c.dim / 2 + i];
    const double x0 = v[2 * i], x1 = v[2 * i + 1];
    v[2 * i] = x0 * cos - x1 * sin;
    v[2 * i + 1] = x0 * sin + x1 * cos;
  }
  return v;
}

// Does out[at ...] hold the head?
void expect_head(const Buffer& out, int64_t at, const std::vector<double>& want) {
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(out[at + static_cast<int64_t>(i)], want[i], tolerance(out.type(), want[i], 8))
        << "element " << i;
  }
}

void expect_placed(const PlaceCase& c, const PlaceData& data) {
  for (size_t t = 0; t < c.split.size(); ++t) {
    for (int64_t i = 0; i < c.n * c.batch * c.split[t]; ++i) {
      const int64_t h = i % c.split[t], row = i / c.split[t], n = row / c.batch, b = row % c.batch;
      const int64_t at = h * c.dim, width = c.split[t] * c.dim;
      const auto want = [&](int which) { return expected(c, data, which, n, b, data.firsts[t] + h); };
      if (c.asks) expect_head(data.q[t], row * width + at, want(0));
      expect_head(data.kv[t], 2 * row * width + at, want(1));
      expect_head(data.kv[t], (2 * row + 1) * width + at, want(2));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  for (const Buffer& copy : data.kv_copies) {
    for (int64_t i = 0; i < c.n * c.batch * c.heads; ++i) {
      const int64_t h = i % c.heads, row = i / c.heads, width = c.heads * c.dim;
      for (const int64_t which : {1, 2}) {
        expect_head(copy, (2 * row + which - 1) * width + h * c.dim,
                    expected(c, data, static_cast<int>(which), row / c.batch, row % c.batch, h));
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Place, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const PlaceCase& c : place_cases()) {
      SCOPED_TRACE(std::string(name_of(t)) + " " + c.text());
      PlaceData data(c, t);
      std::vector<Target> targets;
      place({}, t, placement(c, data, targets, host));
      expect_placed(c, data);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Place, TakesHeadsThatLieApart) {
  const int64_t n = 3, heads = 2, dim = 4;
  const Buffer k = normal(ElementType::kF32, heads * n * dim, 1);  // [heads, n, d]
  Buffer kv(ElementType::kF32, 2 * n * heads * dim);
  const Target target{nullptr, kv.data(), 0, heads};
  place({}, ElementType::kF32,
        {.k = {k.data(), dim, 0, n * dim},
         .n = n,
         .batch = 1,
         .heads = heads,
         .head_dim = dim,
         .targets = std::span(&target, 1)});
  for (int64_t i = 0; i < n * heads * dim; ++i) {
    const int64_t token = i / (heads * dim), h = i / dim % heads, c = i % dim;
    EXPECT_EQ(kv[2 * token * heads * dim + h * dim + c], k[(h * n + token) * dim + c]);
  }
}

TEST(Place, RefusesTargetsThatDoNotPartitionTheHeads) {
  Buffer x(ElementType::kF32, 256);
  const auto call = [&](std::vector<Target> targets) {
    place({}, ElementType::kF32,
          {.k = {x.data(), 16, 0, 4}, .n = 1, .batch = 1, .heads = 4, .head_dim = 4, .targets = targets});
  };
  void* out = x.data(128);
  EXPECT_NO_THROW(call({{nullptr, out, 0, 4}}));
  EXPECT_THROW(call({{nullptr, out, 0, 3}}), std::logic_error);
  EXPECT_THROW(call({{nullptr, out, 0, 3}, {nullptr, out, 2, 1}}), std::logic_error);
  EXPECT_THROW(call({{nullptr, out, 1, 4}}), std::logic_error);
  EXPECT_THROW(call({{nullptr, nullptr, 0, 4}}), std::logic_error);
}

}  // namespace
}  // namespace atelier::kernels
