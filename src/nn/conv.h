// Convolution, group norm and resampling of pictures [B, C, rows, W], whose rows may be held by several
// ranks.
#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "kernels/types.h"
#include "nn/seams.h"

namespace atelier::nn {

struct ConvShape {
  int64_t kernel = 3, stride = 1;
  // Zeros around the picture: above, below, left and right.
  int64_t above = 1, below = 1, left = 1, right = 1;
};

inline constexpr ConvShape kPointwise{.kernel = 1, .above = 0, .below = 0, .left = 0, .right = 0};  // 1x1
// Half the size, padded below and on the right only.
inline constexpr ConvShape kHalving{.kernel = 3, .stride = 2, .above = 0, .below = 1, .left = 0, .right = 1};

// A picture whose numbers still lack a bias, which the kernel that reads them next adds; undefined: they lack
// nothing. On the CPU none ever does.
struct Unbiased {
  at::Tensor x, bias;  // [B, C, rows, W], [C]
};

// A convolution's weights [out, in, k, k] or [out, in, frames, k, k] in the same memory, whose numbers move
// so that on CUDA the channels lie last.
at::Tensor channels_last_(const at::Tensor& weight);

// On CUDA pictures lie channels last (NHWC), as the library's fastest convolutions take them.
class Conv2d {
 public:
  Conv2d() = default;
  Conv2d(at::Tensor weight, at::Tensor bias, ConvShape shape, RowHalo* rows)
      : weight_(std::move(weight)), bias_(std::move(bias)), shape_(shape), rows_(rows) {}
  at::Tensor operator()(const at::Tensor& x) const;
  Unbiased unbiased(const at::Tensor& x) const;

 private:
  friend class DoublingConv2d;
  at::Tensor run(const at::Tensor& x, const at::Tensor& bias) const;
  at::Tensor weight_, bias_;  // [out, in, k, k], [out]
  ConvShape shape_;
  RowHalo* rows_ = nullptr;
};

// A 3x3 convolution, of the same size, of a picture that is made twice as high and wide by repetition.
// Where repeated pixels meet, their weights add up: on CUDA in half types it is four 2x2 convolutions of
// the small picture, one for each pixel of a square, with 4/9 of the work; their weights are made once and
// stay on the device.
class DoublingConv2d {
 public:
  explicit DoublingConv2d(Conv2d conv);
  at::Tensor operator()(const at::Tensor& x) const;  // [B, in, rows, W] -> [B, out, 2 rows, 2 W]

 private:
  Conv2d conv_;
  at::Tensor squares_;  // [4 out, in, 2, 2]; undefined: the picture is doubled first
};

// Wu and He (arXiv 1803.08494). Statistics over all ranks' rows: their moments are summed.
class GroupNorm {
 public:
  GroupNorm() = default;
  GroupNorm(at::Tensor weight, at::Tensor bias, int64_t groups, double eps, Reducer* positions)
      : weight_(std::move(weight)),
        bias_(std::move(bias)),
        groups_(groups),
        eps_(eps),
        positions_(positions) {}
  at::Tensor operator()(const at::Tensor& x) const;
  at::Tensor silu(const Unbiased& x) const;  // of the norm

 private:
  at::Tensor fused(const Unbiased& in, kernels::Nonlinearity nonlinearity) const;
  at::Tensor weight_, bias_;  // [C]
  int64_t groups_ = 1;
  double eps_ = 1e-6;
  Reducer* positions_ = nullptr;
};

// a + b, which may take the place of a.
at::Tensor sum(const Unbiased& a, const Unbiased& b);

// Nearest neighbour, twice as high and wide.
at::Tensor upsample2(const at::Tensor& x);

}  // namespace atelier::nn
