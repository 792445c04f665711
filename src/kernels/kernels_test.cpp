// The CPU twins of the row kernels against naive double-precision formulas, for every type.
#include "kernels/kernels.h"

#include <limits>
#include <stdexcept>

#include "kernels/test_support.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

struct Rows {
  int64_t n, batch, channels;
};
const std::vector<Rows> kRows = {{0, 2, 8},  {3, 0, 8},   {1, 1, 2},   {3, 2, 24},
                                 {2, 3, 37}, {4, 1, 130}, {2, 1, 3072}};

// layer_norm of row `row`, in double.
std::vector<double> normalised(const Buffer& x, int64_t row, int64_t channels, double eps) {
  const auto count = static_cast<double>(channels);
  std::vector<double> v(static_cast<size_t>(channels));
  double mean = 0, variance = 0;
  for (int64_t c = 0; c < channels; ++c) v[c] = x[row * channels + c];
  for (const double e : v) mean += e / count;
  for (const double e : v) variance += (e - mean) * (e - mean) / count;
  for (double& e : v) e = (e - mean) / std::sqrt(variance + eps);
  return v;
}

TEST(NormModulate, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels] : kRows) {
      const int64_t stride = 6 * channels + 1;
      const Buffer x = normal(t, n * batch * channels, 1, 0.5, 2),
                   mod = normal(t, (batch + 1) * stride, 2, 0, 0.5);
      Buffer out(t, x.count());
      const void *shift = mod.data(channels), *scale = mod.data(3 * channels);
      norm_modulate({}, t, out.data(), x.data(), shift, scale, n, batch, channels, stride, 1e-6);
      for (int64_t row = 0; row < n * batch; ++row) {
        const int64_t at = row % batch * stride;
        const std::vector<double> v = normalised(x, row, channels, 1e-6);
        for (int64_t c = 0; c < channels; ++c) {
          const double want = v[c] * (1 + mod[at + 3 * channels + c]) + mod[at + channels + c];
          ASSERT_NEAR(out[row * channels + c], want, tolerance(t, want, 4))
              << name_of(t) << " C=" << channels;
        }
      }
      Buffer in_place = x;
      norm_modulate({}, t, in_place.data(), in_place.data(), shift, scale, n, batch, channels, stride, 1e-6);
      EXPECT_EQ(std::memcmp(in_place.data(), out.data(), static_cast<size_t>(out.bytes())), 0);
    }
  }
}

TEST(NormModulate, KeepsItsPrecisionFarFromZero) {
  const int64_t channels = 640;
  const Buffer x = normal(ElementType::kF32, channels, 3, 3000, 1);
  Buffer out(ElementType::kF32, channels), zero(ElementType::kF32, channels);
  for (int64_t c = 0; c < channels; ++c) zero.set(c, 0);
  norm_modulate({}, ElementType::kF32, out.data(), x.data(), zero.data(), zero.data(), 1, 1, channels,
                channels, 1e-6);
  const std::vector<double> want = normalised(x, 0, channels, 1e-6);
  for (int64_t c = 0; c < channels; ++c) ASSERT_NEAR(out[c], want[c], 1e-3);
}

TEST(NormModulate, OneChannelIsItsShift) {
  Buffer x = normal(ElementType::kF32, 3, 4), mod = normal(ElementType::kF32, 2, 5);
  norm_modulate({}, ElementType::kF32, x.data(), x.data(), mod.data(0), mod.data(1), 3, 1, 1, 1, 1e-6);
  for (int64_t i = 0; i < 3; ++i) EXPECT_EQ(x[i], mod[0]);
}

TEST(GatedAdd, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels] : kRows) {
      const int64_t stride = 2 * channels + 3;
      const Buffer before = normal(t, n * batch * channels, 1), y = normal(t, before.count(), 2);
      const Buffer bias = normal(t, channels, 3), gate = normal(t, (batch + 1) * stride, 4);
      for (const bool biased : {false, true}) {
        Buffer x = before;
        gated_add({}, t, x.data(), y.data(), biased ? bias.data() : nullptr, gate.data(), n, batch, channels,
                  stride);
        for (int64_t i = 0; i < x.count(); ++i) {
          const int64_t c = i % channels, b = i / channels % batch;
          const double want = before[i] + gate[b * stride + c] * (y[i] + (biased ? bias[c] : 0));
          ASSERT_NEAR(x[i], want, tolerance(t, want, 1)) << name_of(t) << " C=" << channels << " i=" << i;
        }
      }
    }
  }
}

TEST(GatedAdd, EverySixteenBitNumberSurvives) {
  for (const ElementType t : {ElementType::kBF16, ElementType::kF16}) {
    const int64_t count = 1 << 16;
    Buffer before(t, count), zero(t, count);
    for (int64_t i = 0; i < count; ++i) {
      const auto bits = static_cast<uint16_t>(i);
      std::memcpy(before.data(i), &bits, sizeof(bits));
      zero.set(i, 0);
    }
    Buffer x = before;
    gated_add({}, t, x.data(), zero.data(), nullptr, zero.data(), 1, 1, count, count);
    for (int64_t i = 0; i < count; ++i) {
      if (std::isnan(before[i])) {
        ASSERT_TRUE(std::isnan(x[i])) << name_of(t) << " bits " << i;
      } else {
        ASSERT_EQ(x[i], before[i]) << name_of(t) << " bits " << i;
      }
    }
  }
}

// Sums of neighbours and near-ties, of every magnitude down to the subnormals.
TEST(GatedAdd, RoundsToNearestEven) {
  std::mt19937 engine(7);
  for (const ElementType t : {ElementType::kBF16, ElementType::kF16}) {
    const int64_t count = 20000;
    Buffer before(t, count), y(t, count), one(t, count);
    for (int64_t i = 0; i < count; ++i) {
      const auto bits = static_cast<uint16_t>(engine());
      std::memcpy(before.data(i), &bits, sizeof(bits));
      if (!std::isfinite(before[i]) || std::abs(before[i]) > 3e37) before.set(i, 1.5);
      y.set(i, before[i] *
                   std::ldexp(1.0 + static_cast<double>(engine() % 8), -static_cast<int>(engine() % 14)));
      if (!std::isfinite(y[i])) y.set(i, 0);
      one.set(i, 1);
    }
    Buffer x = before, want(t, count);
    gated_add({}, t, x.data(), y.data(), nullptr, one.data(), 1, 1, count, count);
    for (int64_t i = 0; i < count; ++i) {
      want.set(i, static_cast<double>(static_cast<float>(before[i] + y[i])));
      ASSERT_EQ(x[i], want[i]) << name_of(t) << ": " << before[i] << " + " << y[i];
    }
  }
}

TEST(GeluTanh, MatchesTheFormulaAndLeavesTheGapsAlone) {
  for (const ElementType t : kAllTypes) {
    for (const auto& [rows, unused, channels] : kRows) {
      const int64_t stride = channels + 5;
      const Buffer before = normal(t, rows * stride, 1, 0, 3), bias = normal(t, channels, 2);
      for (const bool biased : {false, true}) {
        Buffer x = before;
        gelu_tanh({}, t, x.data(), biased ? bias.data() : nullptr, rows, channels, stride);
        for (int64_t i = 0; i < x.count(); ++i) {
          const int64_t c = i % stride;
          if (c >= channels) {
            ASSERT_EQ(x[i], before[i]);
            continue;
          }
          const double v = before[i] + (biased ? bias[c] : 0);
          const double want = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
          ASSERT_NEAR(x[i], want, tolerance(t, want, 1)) << name_of(t) << " v=" << v;
        }
      }
    }
  }
}

TEST(GeluTanh, IsZeroOrTheIdentityFarOut) {
  for (const ElementType t : kAllTypes) {
    Buffer x(t, 6);
    const double far = t == ElementType::kF16 ? 6e4 : 1e30;
    const double values[6] = {0, -far, far, 100, -100, std::numeric_limits<double>::quiet_NaN()};
    for (int64_t i = 0; i < 5; ++i) x.set(i, values[i]);
    gelu_tanh({}, t, x.data(), nullptr, 1, 5, 5);
    EXPECT_EQ(x[0], 0);
    EXPECT_NEAR(x[1], 0, 1e-6);
    EXPECT_NEAR(x[2] / far, 1, 0.01);
    EXPECT_EQ(x[3], 100);
    EXPECT_NEAR(x[4], 0, 1e-30);
  }
}

#ifndef ATELIER_CUDA
TEST(Kernels, RefuseCudaInABuildWithoutIt) {
  Buffer x(ElementType::kF32, 8);
  EXPECT_THROW(gelu_tanh({.cuda = true}, ElementType::kF32, x.data(), nullptr, 1, 8, 8), std::logic_error);
}
#endif

}  // namespace
}  // namespace atelier::kernels
