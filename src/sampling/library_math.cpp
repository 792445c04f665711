#include "sampling/library_math.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log.h>
#include <ATen/ops/sqrt.h>

namespace atelier::sampling {
namespace {

at::Tensor scalar(float x) {
  return at::full({}, x, at::TensorOptions(at::kFloat));
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

}  // namespace atelier::sampling
