#include "models/text/activation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "base/error.h"

namespace atelier::models {
namespace {

at::Tensor gelu_erf(const at::Tensor& x) {
  return at::gelu(x);
}
at::Tensor gelu_tanh(const at::Tensor& x) {
  return at::gelu(x, "tanh");
}
at::Tensor quick_gelu(const at::Tensor& x) {
  return x * at::sigmoid(1.702 * x);
}
at::Tensor rectified(const at::Tensor& x) {
  return at::relu(x);
}
at::Tensor sigmoid_weighted(const at::Tensor& x) {
  return at::silu(x);
}

struct Named {
  std::string_view name;
  ActivationFunction function;
};
constexpr Named kActivations[] = {
    {"gelu", gelu_erf},         {"gelu_new", gelu_tanh}, {"gelu_pytorch_tanh", gelu_tanh},
    {"quick_gelu", quick_gelu}, {"relu", rectified},     {"silu", sigmoid_weighted}};

}  // namespace

ActivationFunction find_activation(const std::string& name, std::string_view where) {
  std::string known;
  for (const auto& each : kActivations) {
    if (each.name == name) return each.function;
    known += (known.empty() ? "" : ", ") + std::string(each.name);
  }
  throw Error(Kind::kCheckpoint, str(where, " names the activation ", name, "; known are ", known));
}

}  // namespace atelier::models
