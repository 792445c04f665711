// All e4m3 numbers, for tests: by their definition, and by search.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>

namespace atelier::kernels::testing {

// The number that a byte stands for: sign, four bits of exponent, three of mantissa.
inline double value_of(uint8_t byte) {
  const int exponent = byte >> 3 & 15, mantissa = byte & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return byte & 0x80 ? -magnitude : magnitude;
}

// By search: the nearest of all; of two as near, the one whose mantissa is even.
inline uint8_t nearest(double v) {
  static const auto all = [] {
    std::array<double, 0x7f> values{};
    for (size_t byte = 0; byte < values.size(); ++byte) values[byte] = value_of(static_cast<uint8_t>(byte));
    return values;
  }();
  if (std::isnan(v)) return 0x7f;
  size_t best = 0;
  for (size_t byte = 0; byte < all.size(); ++byte) {
    const double one = std::abs(all[byte] - std::abs(v)), other = std::abs(all[best] - std::abs(v));
    if (one < other || (one == other && byte % 2 == 0)) best = byte;
  }
  return static_cast<uint8_t>(best | (std::signbit(v) ? 0x80 : 0));
}

}  // namespace atelier::kernels::testing
