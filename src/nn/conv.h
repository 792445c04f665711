// Convolution, group norm and resampling of pictures [B, C, rows, W], whose rows may be held by several
// ranks.
#pragma once
#include <ATen/core/Tensor.h>

#include "nn/seams.h"

namespace atelier::nn {

struct ConvShape {
  int64_t kernel = 3, stride = 1;
  // Zeros around the picture: above, below, left and right.
  int64_t above = 1, below = 1, left = 1, right = 1;
};

class Conv2d {
 public:
  Conv2d() = default;
  Conv2d(at::Tensor weight, at::Tensor bias, ConvShape shape, RowHalo* rows)
      : weight_(weight), bias_(bias), shape_(shape), rows_(rows) {}
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;  // [out, in, k, k], [out]
  ConvShape shape_;
  RowHalo* rows_ = nullptr;
};

// Wu and He (arXiv 1803.08494). Statistics over all ranks' rows: their moments are summed.
class GroupNorm {
 public:
  GroupNorm() = default;
  GroupNorm(at::Tensor weight, at::Tensor bias, int64_t groups, double eps, Reducer* positions)
      : weight_(weight), bias_(bias), groups_(groups), eps_(eps), positions_(positions) {}
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_, bias_;  // [C]
  int64_t groups_ = 1;
  double eps_ = 1e-6;
  Reducer* positions_ = nullptr;
};

// Nearest neighbour, twice as high and wide.
at::Tensor upsample2(const at::Tensor& x);

}  // namespace atelier::nn
