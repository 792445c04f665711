#include "pipeline/patch_moments.h"

#include <ATen/TensorOperators.h>

#include <numeric>

namespace atelier::pipeline {

void PatchMoments::sum(at::Tensor& value) {
  if (ranks_) ranks_->sum(value);
  if (patch_ >= 0) {
    known_[static_cast<size_t>(patch_)] = value.clone();
    value.zero_();
    for (const auto& moments : known_) {
      if (moments.defined()) value.add_(moments);
    }
  } else if (known_.size() > 1) {
    const auto all = static_cast<double>(std::accumulate(tokens_.begin(), tokens_.end(), int64_t{0}));
    for (size_t p = 0; p < known_.size(); ++p) known_[p] = value * (static_cast<double>(tokens_[p]) / all);
  }
}

}  // namespace atelier::pipeline
