#include "nn/conv.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/var_mean.h>
#include <ATen/ops/zeros.h>

namespace atelier::nn {

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  const ConvShape& s = shape_;
  const bool even = s.above == s.below && s.left == s.right && s.above == s.left;
  if (!rows_ && even) return at::conv2d(x, weight_, bias_, s.stride, s.above);
  if (!rows_) {
    return at::conv2d(at::constant_pad_nd(x, {s.left, s.right, s.above, s.below}), weight_, bias_, s.stride);
  }
  auto tall = s.above + s.below > 0 ? rows_->pad(x, s.above, s.below) : x;
  if (tall.size(2) < s.kernel) {  // no row of the result is held here, and the library refuses such a picture
    return at::empty(
        {x.size(0), weight_.size(0), 0, (x.size(3) + s.left + s.right - s.kernel) / s.stride + 1},
        x.options());
  }
  if (s.left == s.right) return at::conv2d(tall, weight_, bias_, s.stride, at::IntArrayRef{0, s.left});
  return at::conv2d(at::constant_pad_nd(tall, {s.left, s.right}), weight_, bias_, s.stride);
}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  if (!positions_) return at::group_norm(x, groups_, weight_, bias_, eps_);
  // Moments in double: one sum over ranks of count times {1, mean, mean of squares} per picture and group.
  const int64_t batch = x.size(0);
  const auto acc_dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto grouped = x.reshape({batch, groups_, -1}).to(acc_dtype);
  const double count = static_cast<double>(grouped.size(2));
  at::Tensor moments;
  if (grouped.size(2) > 0) {
    auto [variance, mean] = at::var_mean(grouped, at::IntArrayRef{2}, /*unbiased=*/false, /*keepdim=*/false);
    const auto m = mean.to(at::kDouble), v = variance.to(at::kDouble);
    moments = at::stack({at::full_like(m, count), m * count, (v + m.square()) * count}).contiguous();
  } else {
    moments = at::zeros({3, batch, groups_}, x.options().dtype(at::kDouble));
  }
  positions_->sum(moments);
  const auto mean = moments[1] / moments[0];
  const auto variance = (moments[2] / moments[0] - mean.square()).clamp_min(0);
  const auto inverse = (variance + eps_).rsqrt();
  const auto normal = (grouped - mean.to(acc_dtype).unsqueeze(2)) * inverse.to(acc_dtype).unsqueeze(2);
  const auto affine = normal.reshape(x.sizes()) * weight_.to(acc_dtype).view({1, -1, 1, 1}) +
                      bias_.to(acc_dtype).view({1, -1, 1, 1});
  return affine.to(x.scalar_type());
}

at::Tensor upsample2(const at::Tensor& x) {
  if (x.size(2) == 0) return at::empty({x.size(0), x.size(1), 0, 2 * x.size(3)}, x.options());
  return at::upsample_nearest2d(x, at::IntArrayRef{2 * x.size(2), 2 * x.size(3)});
}

}  // namespace atelier::nn
