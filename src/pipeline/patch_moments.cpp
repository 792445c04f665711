#include "pipeline/patch_moments.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

namespace atelier::pipeline {

void PatchMoments::sum(at::Tensor& value) {
  if (patch_ >= 0) {
    known_[static_cast<size_t>(patch_)] = value.clone();
    value.zero_();
    for (const auto& moments : known_) {
      if (moments.defined()) value.add_(moments);
    }
  } else if (known_.size() > 1) {
    const auto all = static_cast<double>(std::max<int64_t>(rows_.back().end(), 1));
    for (size_t p = 0; p < known_.size(); ++p) known_[p] = value * (static_cast<double>(rows_[p].size) / all);
  }
  if (ranks_) ranks_->sum(value);
}

}  // namespace atelier::pipeline
