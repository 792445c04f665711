// The CPU twins of the picture kernels against naive double-precision formulas, for every type.
#include "kernels/kernels.h"
#include "kernels/pictures_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

// x + bias, in double.
double number(const PictureCase& c, const Buffer& x, const Buffer* bias, int64_t i) {
  return x[i] + (bias ? (*bias)[i % c.channels] : 0);
}

struct Statistics {
  double count = 0, mean = 0, variance = 0;
};

Statistics statistics(const PictureCase& c, const Buffer& x, const Buffer* bias, int64_t b, int64_t g) {
  const int64_t width = c.channels / c.groups;
  std::vector<double> all;
  for (int64_t p = 0; p < c.positions(); ++p) {
    for (int64_t k = 0; k < width; ++k)
      all.push_back(number(c, x, bias, (b * c.positions() + p) * c.channels + g * width + k));
  }
  Statistics s{static_cast<double>(all.size())};
  for (const double v : all) s.mean += v / s.count;
  for (const double v : all) s.variance += (v - s.mean) * (v - s.mean) / s.count;
  return s;
}

TEST(GroupMoments, AreCountSumAndSquares) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      const Buffer x = normal(t, c.count(), 1, 3, 2), bias = normal(t, c.channels, 2);
      for (const Buffer* plus : {static_cast<const Buffer*>(nullptr), &bias}) {
        std::vector<double> moments(static_cast<size_t>(3 * c.batch * c.groups));
        group_moments({}, t, pixels(c, x.data(), plus ? plus->data() : nullptr), c.groups, moments.data(),
                      nullptr);
        for (int64_t i = 0; i < c.batch * c.groups; ++i) {
          const Statistics s = statistics(c, x, plus, i / c.groups, i % c.groups);
          const auto at = [&](int64_t k) { return moments[static_cast<size_t>(k * c.batch * c.groups + i)]; };
          ASSERT_EQ(at(0), s.count);
          ASSERT_NEAR(at(1) / s.count, s.mean, 1e-12);
          ASSERT_NEAR(at(2) / s.count, s.variance + s.mean * s.mean, 1e-10);
        }
      }
    }
  }
}

TEST(GroupNormKernel, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      const Buffer x = normal(t, c.count(), 1, 3, 2), bias = normal(t, c.channels, 2);
      const Buffer weight = normal(t, c.channels, 3, 1, 0.3), shift = normal(t, c.channels, 4);
      std::vector<double> moments(static_cast<size_t>(3 * c.batch * c.groups));
      const Pixels p = pixels(c, x.data(), bias.data());
      group_moments({}, t, p, c.groups, moments.data(), nullptr);
      std::vector<Statistics> all;
      for (int64_t i = 0; i < c.batch * c.groups; ++i)
        all.push_back(statistics(c, x, &bias, i / c.groups, i % c.groups));
      for (const auto nonlinearity : {Nonlinearity::kNone, Nonlinearity::kSilu}) {
        Buffer out(t, c.count());
        group_norm({}, t, out.data(), p,
                   {moments.data(), c.groups, 1e-6, weight.data(), shift.data(), nonlinearity});
        for (int64_t i = 0; i < c.count(); ++i) {
          const int64_t channel = i % c.channels, b = i / (c.positions() * c.channels);
          const Statistics& s = all[static_cast<size_t>(b * c.groups + channel / (c.channels / c.groups))];
          double want = (number(c, x, &bias, i) - s.mean) / std::sqrt(s.variance + 1e-6) * weight[channel] +
                        shift[channel];
          if (nonlinearity == Nonlinearity::kSilu) want /= 1 + std::exp(-want);
          ASSERT_NEAR(out[i], want, tolerance(t, want, 8)) << name_of(t) << " C=" << c.channels;
        }
      }
    }
  }
}

TEST(ChannelNorm, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      Buffer x = normal(t, c.count(), 1, 3, 2);
      const Buffer bias = normal(t, c.channels, 2), weight = normal(t, c.channels, 3, 1, 0.3);
      for (const auto nonlinearity : {Nonlinearity::kNone, Nonlinearity::kSilu}) {
        Buffer out(t, c.count());
        const double scale = std::sqrt(static_cast<double>(c.channels));
        channel_norm({}, t, out.data(), pixels(c, x.data(), bias.data()),
                     {scale, 1e-12, weight.data(), nonlinearity});
        double sum = 0;  // of the squares of a pixel
        for (int64_t i = 0; i < c.count(); ++i) {
          const int64_t channel = i % c.channels;
          if (channel == 0) {
            sum = 0;
            for (int64_t k = 0; k < c.channels; ++k) sum += std::pow(number(c, x, &bias, i + k), 2);
          }
          double want = number(c, x, &bias, i) / std::sqrt(sum) * scale * weight[channel];
          if (nonlinearity == Nonlinearity::kSilu) want /= 1 + std::exp(-want);
          ASSERT_NEAR(out[i], want, tolerance(t, want, 8)) << name_of(t) << " C=" << c.channels;
        }
      }
    }
  }
}

TEST(ChannelNorm, DividesNothingByLessThanItsLeastLength) {
  Buffer x(ElementType::kF32, 4), weight(ElementType::kF32, 2), out(ElementType::kF32, 4);
  for (int64_t i = 0; i < 4; ++i) x.set(i, i < 2 ? 0 : 3e-7);
  for (int64_t i = 0; i < 2; ++i) weight.set(i, 1);
  channel_norm({}, ElementType::kF32, out.data(), {x.data(), nullptr, 1, 2, 2},
               {1, 1e-6, weight.data(), Nonlinearity::kNone});
  EXPECT_EQ(out[0], 0);
  EXPECT_NEAR(out[2], 0.3, 1e-6);
}

TEST(AddPixels, MatchesTheFormula) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      const Buffer before = normal(t, c.count(), 1), y = normal(t, c.count(), 2);
      const Buffer bias = normal(t, c.channels, 3);
      Buffer x = before;
      add_pixels({}, t, x.data(), pixels(c, y.data(), bias.data()));
      for (int64_t i = 0; i < c.count(); ++i) {
        const double want = before[i] + y[i] + bias[i % c.channels];
        ASSERT_NEAR(x[i], want, tolerance(t, want, 1)) << name_of(t);
      }
    }
  }
}

TEST(Weave, PutsThePixelsOfASquareSideBySide) {
  for (const ElementType t : kAllTypes) {
    for (const PictureCase& c : kPictures) {
      const Buffer x = normal(t, c.batch * (c.rows + 1) * (c.cols + 1) * 4 * c.channels, 1);
      const Buffer bias = normal(t, c.channels, 2);
      Buffer out(t, 4 * c.count());
      weave({}, t, out.data(), x.data(), bias.data(), c.batch, c.rows, c.cols, c.channels);
      int64_t at = 0;
      for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t row = 0; row < 2 * c.rows; ++row) {
          for (int64_t col = 0; col < 2 * c.cols; ++col) {
            const int64_t k = row % 2, l = col % 2;
            const int64_t pixel = (b * (c.rows + 1) + row / 2 + k) * (c.cols + 1) + col / 2 + l;
            for (int64_t channel = 0; channel < c.channels; ++channel, ++at) {
              const double want = x[(pixel * 4 + 2 * k + l) * c.channels + channel] + bias[channel];
              ASSERT_NEAR(out[at], want, tolerance(t, want, 1));
            }
          }
        }
      }
    }
  }
}

TEST(Softmax, MatchesTheFormulaAndItsLogSum) {
  for (const ElementType t : kAllTypes) {
    for (const int64_t columns : {1, 7, 64, 1000}) {
      const int64_t rows = 3;
      const Buffer scores = normal(table_type(t), rows * columns, 1, 20, 30);
      Buffer out(t, rows * columns), lse(table_type(t), rows);
      softmax({}, t, out.data(), lse.data(), scores.data(), 0.3, rows, columns);
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t c = 0; c < columns; ++c) sum += std::exp(0.3 * scores[r * columns + c]);
        ASSERT_NEAR(lse[r], std::log(sum), tolerance(table_type(t), std::log(sum), 1));
        for (int64_t c = 0; c < columns; ++c) {
          const double want = std::exp(0.3 * scores[r * columns + c]) / sum;
          ASSERT_NEAR(out[r * columns + c], want, tolerance(t, want, 1));
        }
      }
    }
  }
}

TEST(GatedGelu, IsTheFirstHalfsGeluTimesTheSecond) {
  for (const ElementType t : kAllTypes) {
    for (const int64_t channels : {1, 24, 37}) {
      const int64_t rows = 4;
      const Buffer x = normal(t, rows * 2 * channels, 1, 0, 2);
      Buffer out(t, rows * channels);
      gated_gelu({}, t, GatedGelu::kTanhFirst, out.data(), x.data(), rows, channels);
      for (int64_t i = 0; i < out.count(); ++i) {
        const int64_t at = i / channels * 2 * channels + i % channels;
        const double v = x[at];
        const double want =
            0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))) * x[at + channels];
        ASSERT_NEAR(out[i], want, tolerance(t, want, 8));
      }
    }
  }
}

TEST(GatedGelu, OrTheFirstHalfTimesTheSecondsExactGelu) {
  for (const ElementType t : kAllTypes) {
    for (const int64_t channels : {1, 24, 37}) {
      const int64_t rows = 4;
      const Buffer x = normal(t, rows * 2 * channels, 1, 0, 2);
      Buffer out(t, rows * channels);
      gated_gelu({}, t, GatedGelu::kErfSecond, out.data(), x.data(), rows, channels);
      for (int64_t i = 0; i < out.count(); ++i) {
        const int64_t at = i / channels * 2 * channels + i % channels;
        const double v = x[at + channels];
        const double want = x[at] * 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
        ASSERT_NEAR(out[i], want, tolerance(t, want, 8));
      }
    }
  }
}

}  // namespace
}  // namespace atelier::kernels
