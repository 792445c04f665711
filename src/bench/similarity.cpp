#include "bench/similarity.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace atelier::bench {
namespace {

using Plane = std::vector<double>;  // [height, width]

constexpr int kRadius = 5;
constexpr double kSigma = 1.5, kPeak = 255;

void check_sizes(const media::Image& a, const media::Image& b) {
  if (a.width == b.width && a.height == b.height) return;
  throw Error(Kind::kItem, str("pictures of ", a.width, "x", a.height, " and ", b.width, "x", b.height,
                               " cannot be compared"));
}

// [ITU-R BT.601]
Plane luma(const media::Image& p) {
  Plane out(static_cast<size_t>(p.width) * p.height);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = 0.299 * p.rgb[3 * i] + 0.587 * p.rgb[3 * i + 1] + 0.114 * p.rgb[3 * i + 2];
  return out;
}

std::array<double, 2 * kRadius + 1> window() {
  std::array<double, 2 * kRadius + 1> w{};
  double sum = 0;
  for (int i = -kRadius; i <= kRadius; ++i) sum += w[i + kRadius] = std::exp(-i * i / (2 * kSigma * kSigma));
  for (double& v : w) v /= sum;
  return w;
}

// Weighted means around every pixel; the border is repeated.
Plane blurred(const Plane& in, int width, int height) {
  const auto w = window();
  Plane across(in.size()), out(in.size());
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      double sum = 0;
      for (int i = -kRadius; i <= kRadius; ++i)
        sum += w[i + kRadius] * in[static_cast<size_t>(y) * width + std::clamp(x + i, 0, width - 1)];
      across[static_cast<size_t>(y) * width + x] = sum;
    }
  }
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      double sum = 0;
      for (int i = -kRadius; i <= kRadius; ++i)
        sum += w[i + kRadius] * across[static_cast<size_t>(std::clamp(y + i, 0, height - 1)) * width + x];
      out[static_cast<size_t>(y) * width + x] = sum;
    }
  }
  return out;
}

Plane times(const Plane& a, const Plane& b) {
  Plane out(a.size());
  for (size_t i = 0; i < a.size(); ++i) out[i] = a[i] * b[i];
  return out;
}

double ssim(const media::Image& a, const media::Image& b) {
  constexpr double kC1 = 0.01 * kPeak * 0.01 * kPeak, kC2 = 0.03 * kPeak * 0.03 * kPeak;
  const Plane x = luma(a), y = luma(b);
  const auto mean = [&](const Plane& p) { return blurred(p, a.width, a.height); };
  const Plane mx = mean(x), my = mean(y), xx = mean(times(x, x)), yy = mean(times(y, y)),
              xy = mean(times(x, y));
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double vx = xx[i] - mx[i] * mx[i], vy = yy[i] - my[i] * my[i], cov = xy[i] - mx[i] * my[i];
    sum += (2 * mx[i] * my[i] + kC1) * (2 * cov + kC2) /
           ((mx[i] * mx[i] + my[i] * my[i] + kC1) * (vx + vy + kC2));
  }
  return sum / static_cast<double>(x.size());
}

}  // namespace

Similarity similarity(const media::Image& picture, const media::Image& reference) {
  check_sizes(picture, reference);
  Similarity out;
  double squares = 0;
  size_t different = 0;
  for (size_t i = 0; i < picture.rgb.size(); ++i) {
    const int d = std::abs(picture.rgb[i] - reference.rgb[i]);
    out.most_levels = std::max(out.most_levels, d);
    squares += d * d;
    different += d > 0;
  }
  const auto values = static_cast<double>(picture.rgb.size());
  out.share = static_cast<double>(different) / values;
  out.psnr = squares > 0 ? 10 * std::log10(kPeak * kPeak * values / squares)
                         : std::numeric_limits<double>::infinity();
  if (different > 0) out.ssim = ssim(picture, reference);
  return out;
}

media::Image heat_map(const media::Image& picture, const media::Image& reference) {
  check_sizes(picture, reference);
  media::Image out{picture.width, picture.height, std::vector<uint8_t>(picture.rgb.size())};
  for (size_t i = 0; i < out.rgb.size(); i += 3) {
    int most = 0;
    for (size_t c = 0; c < 3; ++c) most = std::max(most, std::abs(picture.rgb[i + c] - reference.rgb[i + c]));
    // black, red, yellow, white
    const double heat = 3.0 * std::min(most, kHottest) / kHottest;
    for (size_t c = 0; c < 3; ++c)
      out.rgb[i + c] = static_cast<uint8_t>(kPeak * std::clamp(heat - static_cast<double>(c), 0., 1.));
  }
  return out;
}

media::Image beside(const std::vector<media::Image>& pictures, int gap) {
  media::Image out;
  for (const auto& p : pictures) {
    out.width += p.width + (out.width > 0 ? gap : 0);
    out.height = std::max(out.height, p.height);
  }
  out.rgb.assign(static_cast<size_t>(out.width) * out.height * 3, 255);
  int left = 0;
  for (const auto& p : pictures) {
    for (int y = 0; y < p.height; ++y) {
      std::copy_n(p.rgb.begin() + static_cast<int64_t>(y) * p.width * 3, p.width * 3,
                  out.rgb.begin() + (static_cast<int64_t>(y) * out.width + left) * 3);
    }
    left += p.width + gap;
  }
  return out;
}

media::Image reduced(const media::Image& p, int factor) {
  media::Image out{p.width / factor, p.height / factor, {}};
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      for (int c = 0; c < 3; ++c) {
        int sum = 0;
        for (int i = 0; i < factor * factor; ++i) {
          const int64_t at = int64_t{y * factor + i / factor} * p.width + x * factor + i % factor;
          sum += p.rgb[at * 3 + c];
        }
        out.rgb.push_back(static_cast<uint8_t>((sum + factor * factor / 2) / (factor * factor)));
      }
    }
  }
  return out;
}

}  // namespace atelier::bench
