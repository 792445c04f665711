// The CPU twins of quantise.h against a table of all e4m3 numbers and formulas in double.
#include "kernels/quantise.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "kernels/e4m3_numbers.h"
#include "kernels/quantise_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

double scale_for(double most) {
  if (most == 0) return 1;
  double scale = std::ldexp(1.0, -60);
  while (most > 448 * scale) scale *= 2;
  return scale;
}

double gelu(double v) {
  return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
}

QuantisedBytes quantised(const std::vector<double>& row) {
  Buffer x(ElementType::kF32, static_cast<int64_t>(row.size()));
  for (size_t i = 0; i < row.size(); ++i) x.set(static_cast<int64_t>(i), row[i]);
  QuantisedBytes got(1, x.count());
  const RowSegment all{x.data(), x.count(), x.count()};
  quantise_e4m3({}, x.type(), got.out(), std::span(&all, 1), 1);
  return got;
}

// Numbers that no rounding precedes give the very bytes; those of gelu are within a hair more than
// half a step.
TEST(QuantiseE4m3, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const SegmentCase& c : kSegments) {
      const auto data = data_of(c, t);
      QuantisedBytes got(c.rows, c.total());
      const auto segments =
          segments_of(c, data, [](const Buffer& b, int64_t at) -> const void* { return b.data(at); });
      quantise_e4m3({}, t, got.out(), segments, c.rows);
      for (int64_t row = 0; row < c.rows; ++row) {
        std::vector<double> want;
        std::vector<bool> is_exact;
        for (size_t s = 0; s < data.size(); ++s) {
          for (int64_t k = 0; k < c.channels[s]; ++k) {
            const double v = static_cast<float>(data[s][c.skew + row * (c.channels[s] + c.gap) + k]);
            want.push_back(c.gelu[s] ? gelu(v) : v);
            is_exact.push_back(!c.gelu[s]);
          }
        }
        double most = 0;
        for (const double v : want) most = std::max(most, std::abs(v));
        const double scale = scale_for(most);
        ASSERT_EQ(got.scales[row], scale) << name_of(t) << " C=" << c.total();
        for (size_t i = 0; i < want.size(); ++i) {
          const uint8_t byte = got.rows[row * c.total() + i];
          if (is_exact[i] && c.total() < 1000) {
            ASSERT_EQ(byte, nearest(want[i] / scale)) << name_of(t) << " " << want[i];
          } else {
            const double step = std::max(std::ldexp(std::abs(want[i]), -4) * 1.0001, std::ldexp(scale, -10));
            ASSERT_NEAR(value_of(byte) * scale, want[i], step) << name_of(t) << " " << want[i];
          }
        }
      }
    }
  }
}

TEST(QuantiseE4m3, EveryNumberOfTheTypeSurvivesUnderEveryScale) {
  for (const int power : {-30, -1, 0, 5, 60}) {
    std::vector<double> row;
    for (int byte = 0; byte < 256; ++byte) {
      if ((byte & 0x7f) != 0x7f) row.push_back(std::ldexp(value_of(static_cast<uint8_t>(byte)), power));
    }
    const QuantisedBytes got = quantised(row);
    EXPECT_EQ(got.scales[0], std::ldexp(1.0, power));
    for (size_t i = 0; i < row.size(); ++i)
      EXPECT_EQ(value_of(got.rows[i]) * got.scales[0], row[i]) << "of " << row.size();
  }
}

TEST(QuantiseE4m3, TiesGoToTheEvenNumber) {
  std::vector<double> row{448};
  for (uint8_t byte = 0; byte < 0x7e; ++byte)
    row.push_back((value_of(byte) + value_of(static_cast<uint8_t>(byte + 1))) / 2);
  const QuantisedBytes got = quantised(row);
  for (size_t i = 1; i < row.size(); ++i) {
    const auto below = static_cast<uint8_t>(i - 1);
    EXPECT_EQ(got.rows[i], below % 2 == 0 ? below : below + 1) << row[i];
  }
}

TEST(QuantiseE4m3, TheScaleIsTheLeastThatFits) {
  EXPECT_EQ(quantised({448, 1}).scales[0], 1);
  EXPECT_EQ(quantised({-448 * 1.0000001, 1}).scales[0], 2);
  EXPECT_EQ(quantised({224, 1}).scales[0], 0.5F);
  EXPECT_EQ(quantised({0, -0.0}).scales[0], 1);
  EXPECT_EQ(quantised({0, -0.0}).rows[0], 0);
  const QuantisedBytes tiny = quantised({1e-42, 0});
  EXPECT_NEAR(value_of(tiny.rows[0]) * tiny.scales[0], 1e-42, std::ldexp(1.0, -126 - 9));
}

TEST(QuantiseE4m3, WhatIsNoNumberStaysVisible) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const QuantisedBytes one = quantised({1, nan, -2});
  EXPECT_EQ(one.rows[1] & 0x7f, 0x7f);
  EXPECT_EQ(value_of(one.rows[2]) * one.scales[0], -2);
  const QuantisedBytes all = quantised({1, -std::numeric_limits<double>::infinity()});
  EXPECT_TRUE(std::isnan(all.scales[0]));
  EXPECT_EQ(all.rows[0] & 0x7f, 0x7f);
}

// So tensor parallelism, which rounds each rank's part of a row for itself, draws the picture of one rank.
TEST(QuantiseE4m3, APartOfARowHasTheValuesOfTheWhole) {
  const Buffer x = normal(ElementType::kF32, 512, 3);
  std::vector<double> whole, part;
  for (int64_t i = 0; i < 512; ++i) whole.push_back(x[i] * (i < 256 ? 1 : 40));
  part.assign(whole.begin(), whole.begin() + 256);
  const QuantisedBytes of_whole = quantised(whole), of_part = quantised(part);
  ASSERT_LT(of_part.scales[0], of_whole.scales[0]);
  int same = 0;
  for (size_t i = 0; i < part.size(); ++i) {
    const double a = value_of(of_whole.rows[i]) * of_whole.scales[0],
                 b = value_of(of_part.rows[i]) * of_part.scales[0];
    if (std::abs(part[i]) >= std::ldexp(of_whole.scales[0], -6)) {
      EXPECT_EQ(a, b);
      ++same;
    }
    EXPECT_NEAR(a, b, std::ldexp(of_whole.scales[0], -9));
  }
  EXPECT_GT(same, 200);
}

TEST(NormModulateE4m3, MatchesTheFormula) {
  constexpr double kEps = 1e-6;
  for (const ElementType t : kAllTypes) {
    for (const auto& [n, batch, channels] :
         std::vector<std::array<int64_t, 3>>{{0, 2, 8}, {1, 1, 2}, {3, 2, 24}, {2, 3, 37}, {2, 1, 3072}}) {
      const int64_t stride = 6 * channels + 16;
      const Buffer x = normal(t, n * batch * channels, 1, 0.5, 2), mod = normal(t, batch * stride, 2, 0, 0.5);
      QuantisedBytes got(n * batch, channels);
      norm_modulate_e4m3({}, t, got.out(), x.data(), mod.data(channels), mod.data(0), n, batch, channels,
                         stride, kEps);
      int64_t other = 0;
      for (int64_t row = 0; row < n * batch; ++row) {
        double mean = 0, variance = 0, most = 0;
        for (int64_t c = 0; c < channels; ++c) mean += x[row * channels + c] / static_cast<double>(channels);
        for (int64_t c = 0; c < channels; ++c)
          variance += std::pow(x[row * channels + c] - mean, 2) / static_cast<double>(channels);
        std::vector<double> want;
        const int64_t at = row % batch * stride;
        for (int64_t c = 0; c < channels; ++c) {
          const double v = (x[row * channels + c] - mean) / std::sqrt(variance + kEps);
          want.push_back(v * (1 + mod[at + c]) + mod[at + channels + c]);
          most = std::max(most, std::abs(want.back()));
        }
        ASSERT_EQ(got.scales[row], scale_for(most)) << name_of(t) << " C=" << channels;
        for (int64_t c = 0; c < channels; ++c) {
          const uint8_t byte = got.rows[row * channels + c], exact = nearest(want[c] / got.scales[row]);
          ASSERT_LE(std::abs((byte & 0x7f) - (exact & 0x7f)), 1);
          other += byte != exact;
        }
      }
      EXPECT_LE(other, n * batch * channels / 1000) << name_of(t) << " C=" << channels;
    }
  }
}

}  // namespace
}  // namespace atelier::kernels
