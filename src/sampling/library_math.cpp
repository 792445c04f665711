#include "sampling/library_math.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log.h>
#include <ATen/ops/sqrt.h>

#include <array>
#include <cmath>
#include <numbers>
#include <span>

namespace atelier::sampling {
namespace {

at::Tensor scalar(float x) {
  return at::full({}, x, at::TensorOptions(at::kFloat));
}

// Horner's rule in fused products; highest power first.
float polynomial_at(float x, std::span<const float> coefficients) {
  float value = 0;
  for (const float c : coefficients) value = std::fma(value, x, c);
  return value;
}

}  // namespace

float lib_sqrt(float x) {
  return at::sqrt(scalar(x)).item<float>();
}
float lib_exp(float x) {
  return at::exp(scalar(x)).item<float>();
}
float lib_expm1(float x) {
  return at::expm1(scalar(x)).item<float>();
}
float lib_log(float x) {
  return at::log(scalar(x)).item<float>();
}

// log x = k log 2 + log(1 + y), y from sqrt(1/2) - 1 to sqrt(2) - 1; the latter is a quotient of polynomials.
float numpy_log(float x) {
  static constexpr std::array kUpper{2.58997912e-2f, 0.38088378f, 1.4800006f, 2.1126775f, 1.0f, 0.0f};
  static constexpr std::array kLower{5.8750954e-3f, 0.15464764f, 0.9864943f, 2.4530061f, 2.6126776f, 1.0f};
  if (!(x > 0) || std::isinf(x)) return std::log(x);
  int k = 0;
  float mantissa = std::frexp(x, &k);
  if (mantissa < std::numbers::sqrt2_v<float> / 2) mantissa *= 2, --k;
  const float y = mantissa - 1, rest = polynomial_at(y, kUpper) / polynomial_at(y, kLower);
  return std::fma(static_cast<float>(k), std::numbers::ln2_v<float>, rest);
}

}  // namespace atelier::sampling
