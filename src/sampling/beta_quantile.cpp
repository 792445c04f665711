#include "sampling/beta_quantile.h"

#include <cmath>

namespace atelier::sampling {
namespace {

// The continued fraction of the incomplete beta function (NIST, Digital Library of Mathematical Functions,
// 8.17.22), by Lentz's method. Converges quickly for x < (a + 1) / (a + b + 2).
double fraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300;
  const auto kept = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / kept(1 - (a + b) * x / (a + 1)), result = d;
  for (int m = 1; m < 500; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double factor = 1;
    for (const double term : {even, odd}) {
      d = 1 / kept(1 + term * d);
      c = kept(1 + term / c);
      factor = c * d;
      result *= factor;
    }
    if (std::abs(factor - 1) < 1e-16) break;
  }
  return result;
}

// The share of the distribution below x: the regularized incomplete beta function.
double share_below(double x, double a, double b) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  const double scale =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? scale * fraction(x, a, b) / a : 1 - scale * fraction(1 - x, b, a) / b;
}

}  // namespace

double beta_quantile(double p, double a, double b) {
  if (p <= 0 || p >= 1) return p <= 0 ? 0 : 1;
  double low = 0, high = 1;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (share_below(middle, a, b) < p ? low : high) = middle;
  }
  return low + (high - low) / 2;
}

}  // namespace atelier::sampling
