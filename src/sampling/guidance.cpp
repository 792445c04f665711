#include "sampling/guidance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/stack.h>

#include "base/check.h"
#include "nn/ordered.h"
#include "nn/seams.h"

namespace atelier::sampling {
namespace {

// Squared deviations from the mean, summed over tokens and channels, [B]. Deviation's n or n - 1 cancels
// in a ratio.
at::Tensor deviation(const at::Tensor& count, const at::Tensor& sum, const at::Tensor& squares) {
  return squares - sum * sum / count;
}

}  // namespace

at::Tensor guide(const Guidance& guidance, std::span<const at::Tensor> branches, nn::Reducer* positions) {
  ENSURE(branches.size() == 1 || branches.size() == 2);
  const auto& positive = branches[0];
  if (branches.size() == 1) return positive;
  auto guided = branches[1] + guidance.scale * (positive - branches[1]);
  if (guidance.rescale == 0) return guided;
  const auto p = positive.to(at::kDouble), g = guided.to(at::kDouble);
  at::Tensor moments;  // [5, B]
  if (nn::OrderedArithmetic::is_on()) {
    const auto terms = at::stack({at::ones_like(p), p, p * p, g, g * g}).transpose(1, 2).flatten(2);
    moments = nn::exact_sums(terms.flatten(0, 1), positions).view({5, p.size(1)});
  } else {
    const auto total = [](const at::Tensor& x) { return x.sum(at::IntArrayRef{0, 2}); };
    const double here = static_cast<double>(p.size(0) * p.size(2));
    moments =
        at::stack({at::full({p.size(1)}, here, p.options()), total(p), total(p * p), total(g), total(g * g)});
    if (positions) positions->sum(moments);
  }
  const auto ratio =
      at::sqrt(deviation(moments[0], moments[1], moments[2]) / deviation(moments[0], moments[3], moments[4]));
  const auto factor = guidance.rescale * ratio + (1 - guidance.rescale);  // [B]
  return guided * factor.unsqueeze(-1).to(guided.scalar_type());
}

}  // namespace atelier::sampling
