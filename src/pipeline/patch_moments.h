// Rescaled guidance where patches flow: a patch is guided before the others of its step are predicted.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "nn/seams.h"

namespace atelier::pipeline {

// Sums the moments of a prediction over the patches too. Those of other patches are the last ones known, as
// their keys and values are; after a whole pass each counts for its share of the tokens. What is known is of
// all ranks, whose parts of a patch may differ.
class PatchMoments : public nn::Reducer {
 public:
  // known: by patch, undefined before the first; tokens: of each patch, on all ranks; ranks: null
  // for one rank.
  PatchMoments(std::span<at::Tensor> known, std::span<const int64_t> tokens, int patch, nn::Reducer* ranks)
      : known_(known), tokens_(tokens), patch_(patch), ranks_(ranks) {}
  void sum(at::Tensor& value) override;

 private:
  std::span<at::Tensor> known_;  // by patch
  std::span<const int64_t> tokens_;
  int patch_;
  nn::Reducer* ranks_;
};

}  // namespace atelier::pipeline
