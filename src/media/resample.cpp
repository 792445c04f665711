// A filter for each place of the result, applied along one axis after the other.
#include "media/resample.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "base/check.h"

namespace atelier::media {
namespace {

constexpr int kLobes = 3;
constexpr int kFraction =
    22;  // bits of a weight behind the point: 32 less 8 of a sample and 2 for overshoots

double sinc(double x) {
  return x == 0 ? 1 : std::sin(x * std::numbers::pi) / (x * std::numbers::pi);
}

double lanczos(double x) {
  return x >= -kLobes && x < kLobes ? sinc(x) * sinc(x / kLobes) : 0;
}

// -0.5 is the slope at 1 that Pillow takes.
double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// A filter and how far it reaches.
struct Kernel {
  double (*weight)(double);
  int reach;
};

Kernel kernel_of(Filter filter) {
  return filter == Filter::kBicubic ? Kernel{bicubic, 2} : Kernel{lanczos, kLobes};
}

// What one place of the result is made of: samples `first`, first + 1, ...
struct Taps {
  int first = 0;
  std::vector<int32_t> weights;
};

int32_t fixed(double weight) {
  return static_cast<int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kFraction));
}

// from, to: samples along the axis.
std::vector<Taps> taps_of(int from, int to, const Kernel& kernel) {
  const double scale = static_cast<double>(from) / to, stretch = std::max(scale, 1.0);
  const double reach = kernel.reach * stretch;
  std::vector<Taps> all(static_cast<size_t>(to));
  std::vector<double> weights;
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - reach + 0.5), 0);
    const int end = std::min(static_cast<int>(center + reach + 0.5), from);
    weights.clear();
    double sum = 0;
    for (int k = first; k < end; ++k) {
      weights.push_back(kernel.weight((k - center + 0.5) * (1 / stretch)));
      sum += weights.back();
    }
    auto& taps = all[static_cast<size_t>(i)];
    taps.first = first;
    for (const double w : weights) taps.weights.push_back(fixed(sum != 0 ? w / sum : w));
  }
  return all;
}

uint8_t rounded(int64_t sum) {
  return static_cast<uint8_t>(std::clamp<int64_t>(sum >> kFraction, 0, 255));
}

// samples: the first of those along the axis that the result lies on; `step` from each to the next.
uint8_t filtered(const Taps& taps, const uint8_t* samples, size_t step) {
  int64_t sum = int64_t{1} << (kFraction - 1);
  const uint8_t* at = samples + static_cast<size_t>(taps.first) * step;
  for (const int32_t w : taps.weights) {
    sum += static_cast<int64_t>(w) * *at;
    at += step;
  }
  return rounded(sum);
}

constexpr size_t kChannels = 3;

Image wider(const Image& in, int width, const Kernel& kernel) {
  const auto taps = taps_of(in.width, width, kernel);
  const size_t from = kChannels * static_cast<size_t>(in.width), to = kChannels * static_cast<size_t>(width);
  Image out{width, in.height, std::vector<uint8_t>(to * static_cast<size_t>(in.height))};
  for (size_t row = 0; row < static_cast<size_t>(in.height); ++row) {
    for (size_t i = 0; i < to; ++i)
      out.rgb[row * to + i] =
          filtered(taps[i / kChannels], in.rgb.data() + row * from + i % kChannels, kChannels);
  }
  return out;
}

Image taller(const Image& in, int height, const Kernel& kernel) {
  const auto taps = taps_of(in.height, height, kernel);
  const size_t row = kChannels * static_cast<size_t>(in.width);
  Image out{in.width, height, std::vector<uint8_t>(row * static_cast<size_t>(height))};
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    for (size_t i = 0; i < row; ++i) out.rgb[y * row + i] = filtered(taps[y], in.rgb.data() + i, row);
  }
  return out;
}

// Each axis rounds to bytes, so that their order is seen. Pillow 13 takes a height first that loses more than
// twice what the width loses; earlier releases always take the width first.
bool comes_height_first(const Image& picture, int width, int height) {
  return height < picture.height && picture.height - height > 2 * (picture.width - width);
}

}  // namespace

Image resized(const Image& picture, int width, int height, Filter filter) {
  ENSURE(picture.width > 0 && picture.height > 0 && width > 0 && height > 0);
  const Kernel kernel = kernel_of(filter);
  const bool is_height_first = comes_height_first(picture, width, height);
  Image out = picture;
  if (is_height_first) out = taller(out, height, kernel);
  if (out.width != width) out = wider(out, width, kernel);
  return out.height == height ? out : taller(out, height, kernel);
}

}  // namespace atelier::media
