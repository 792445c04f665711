#include "models/text/padding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <limits>

namespace atelier::models {
namespace {

double lowest(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return std::numeric_limits<c10::Half>::lowest();
    case at::kBFloat16:
      return std::numeric_limits<c10::BFloat16>::lowest();
    default:
      return std::numeric_limits<float>::lowest();
  }
}

}  // namespace

at::Tensor hidden_padding(const at::Tensor& mask, const at::Tensor& like) {
  if (!mask.defined()) return {};
  const auto hidden = (mask == 0).view({-1, 1, 1, mask.size(1)});
  return at::zeros(hidden.sizes(), like.options()).masked_fill_(hidden, lowest(like.scalar_type()));
}

}  // namespace atelier::models
