// Rescaled guidance where patches flow: a patch is guided before the others of its step are predicted.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "base/partition.h"
#include "nn/seams.h"

namespace atelier::pipeline {

// Sums the moments of a prediction over the patches too. Those of other patches are the last ones known, as their keys
// and values are; after a whole pass each counts for its share of the rows.
class PatchMoments : public nn::Reducer {
 public:
  // known: by patch, undefined before the first; rows: of each patch, held here; ranks: null for one rank.
  PatchMoments(std::span<at::Tensor> known, std::span<const Range> rows, int patch, nn::Reducer* ranks)
      : known_(known), rows_(rows), patch_(patch), ranks_(ranks) {}
  void sum(at::Tensor& value) override;

 private:
  std::span<at::Tensor> known_;  // by patch
  std::span<const Range> rows_;
  int patch_;
  nn::Reducer* ranks_;
};

}  // namespace atelier::pipeline
