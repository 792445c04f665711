#include "nn/conv.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/zeros.h>

#include "base/check.h"
#include "kernels/ordered.h"
#include "kernels/pictures.h"
#include "nn/launch_target.h"
#include "nn/ordered.h"

namespace atelier::nn {

namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;

at::Tensor laid_out(const at::Tensor& x) {
  return x.is_cuda() ? x.contiguous(kLast) : x;
}

kernels::Pixels pixels_of(const at::Tensor& x, const at::Tensor& bias) {
  ENSURE(x.is_contiguous(kLast));
  return {x.const_data_ptr(), data_of(bias), x.size(0), x.size(2) * x.size(3), x.size(1)};
}

// The two taps of a row (dim 2) or column (dim 3) of weights that see different pixels of the small picture,
// for the first or the second pixel of a square.
at::Tensor taps(const at::Tensor& w, int64_t dim, int64_t pixel) {
  const auto a = w.narrow(dim, 0, 1), b = w.narrow(dim, 1, 1), c = w.narrow(dim, 2, 1);
  return pixel == 0 ? at::cat({a, b + c}, dim) : at::cat({a + b, c}, dim);
}

// How many numbers each group of each picture holds on all ranks, their sum and the sum of their squares, [3,
// B, G]. Sums of picture rows, which no rank cuts, are the terms; under OrderedArithmetic they are added
// exactly.
at::Tensor moments_of(const at::Tensor& x, int64_t groups, Reducer* others) {
  const auto wide = x.scalar_type() == at::kDouble ? x.contiguous() : x.to(at::kFloat).contiguous();
  const int64_t cols = x.size(3), all = x.size(0) * groups,
                terms = all > 0 ? x.size(0) * x.size(1) * x.size(2) / all : 0;
  auto rows = at::empty({3, all, terms}, x.options().dtype(at::kDouble));
  rows[0].fill_(cols);
  double *const sums = rows[1].data_ptr<double>(), *const squares = rows[2].data_ptr<double>();
  at::parallel_for(0, all * terms, grain(cols), [&](int64_t begin, int64_t end) {
    const auto run = [&](const auto* from) {
      kernels::row_sums(from + begin * cols, sums + begin, squares + begin, end - begin, cols);
    };
    wide.scalar_type() == at::kDouble ? run(wide.const_data_ptr<double>())
                                      : run(wide.const_data_ptr<float>());
  });
  if (OrderedArithmetic::is_on()) return exact_sums(rows.flatten(0, 1), others).view({3, x.size(0), groups});
  auto moments = rows.sum(-1).view({3, x.size(0), groups});
  if (others) others->sum(moments);
  return moments;
}

}  // namespace

at::Tensor channels_last_(const at::Tensor& weight) {
  if (!weight.is_cuda()) return weight;
  // A copy in any case: where the kernel is 1x1, contiguous() would be the weight itself.
  const auto last = weight.movedim(1, -1).clone(at::MemoryFormat::Contiguous);
  return weight.view(last.sizes()).copy_(last).movedim(-1, 1);
}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  return run(laid_out(x), bias_);
}

Unbiased Conv2d::unbiased(const at::Tensor& x) const {
  if (!x.is_cuda()) return {run(x, bias_), {}};
  return {laid_out(run(laid_out(x), {})), bias_};
}

at::Tensor Conv2d::run(const at::Tensor& x, const at::Tensor& bias) const {
  const ConvShape& s = shape_;
  const std::optional<at::Tensor> plus = bias.defined() ? std::optional(bias) : std::nullopt;
  const bool even = s.above == s.below && s.left == s.right && s.above == s.left;
  auto* const others = with_others(rows_);
  if (!others && even) return at::conv2d(x, weight_, plus, s.stride, s.above);
  if (!others) {
    return at::conv2d(at::constant_pad_nd(x, {s.left, s.right, s.above, s.below}), weight_, plus, s.stride);
  }
  auto tall = s.above + s.below > 0 ? others->pad(x, s.above, s.below) : x;
  if (tall.size(2) < s.kernel) {  // no row of the result is held here, and the library refuses such a picture
    return at::empty(
        {x.size(0), weight_.size(0), 0, (x.size(3) + s.left + s.right - s.kernel) / s.stride + 1},
        x.options());
  }
  if (s.left == s.right) return at::conv2d(tall, weight_, plus, s.stride, at::IntArrayRef{0, s.left});
  return at::conv2d(at::constant_pad_nd(tall, {s.left, s.right}), weight_, plus, s.stride);
}

DoublingConv2d::DoublingConv2d(Conv2d conv) : conv_(std::move(conv)) {
  const auto& w = conv_.weight_;
  if (!w.is_cuda() || (w.scalar_type() != at::kBFloat16 && w.scalar_type() != at::kHalf)) return;
  ENSURE(w.size(2) == 3 && w.size(3) == 3 && conv_.shape_.stride == 1);
  std::vector<at::Tensor> parts;
  for (const int64_t row : {0, 1}) {
    for (const int64_t col : {0, 1}) parts.push_back(taps(taps(w.to(at::kFloat), 2, row), 3, col));
  }
  squares_ = at::cat(parts).to(w.scalar_type()).contiguous(kLast);
}

at::Tensor DoublingConv2d::operator()(const at::Tensor& any) const {
  if (!squares_.defined()) return conv_(upsample2(any));
  const auto x = laid_out(any);
  const int64_t batch = x.size(0), channels = squares_.size(0) / 4, rows = x.size(2), cols = x.size(3);
  // Each square's pixels see its place and one neighbour to every side.
  auto* const others = with_others(conv_.rows_);
  const auto tall = others ? others->pad(x, 1, 1) : x;
  const auto y = laid_out(at::conv2d(tall, squares_, {}, 1, at::IntArrayRef{others ? 0 : 1, 1}));
  auto out = at::empty({batch, channels, 2 * rows, 2 * cols}, x.options(), kLast);
  kernels::weave(launch_target_of(x), dtype_of(x), out.data_ptr(), y.const_data_ptr(), data_of(conv_.bias_),
                 batch, rows, cols, channels);
  return out;
}

at::Tensor GroupNorm::silu(const Unbiased& x) const {
  return x.x.is_cuda() ? fused(x, kernels::Nonlinearity::kSilu) : at::silu((*this)(x.x));
}

at::Tensor GroupNorm::fused(const Unbiased& in, kernels::Nonlinearity nonlinearity) const {
  const auto x = laid_out(in.x);
  const auto where = launch_target_of(x);
  const auto pixels = pixels_of(x, in.bias);
  const auto doubles = x.options().dtype(at::kDouble);
  at::Tensor moments;
  if (x.numel() == 0) {
    moments = at::zeros({3, x.size(0), groups_}, doubles);
  } else {
    moments = at::empty({3, x.size(0), groups_}, doubles);
    auto scratch = at::empty({kernels::moments_scratch(pixels)}, doubles);
    kernels::group_moments(where, dtype_of(x), pixels, groups_, moments.data_ptr<double>(),
                           scratch.data_ptr<double>());
  }
  if (auto* const others = with_others(positions_)) others->sum(moments);
  auto out = at::empty(x.sizes(), x.options(), kLast);
  kernels::group_norm(where, dtype_of(x), out.data_ptr(), pixels,
                      {moments.const_data_ptr<double>(), groups_, eps_, weight_.const_data_ptr(),
                       bias_.const_data_ptr(), nonlinearity});
  return out;
}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  if (x.is_cuda()) return fused({x, {}}, kernels::Nonlinearity::kNone);
  auto* const others = with_others(positions_);
  if (!others && !OrderedArithmetic::is_on()) return at::group_norm(x, groups_, weight_, bias_, eps_);
  const int64_t batch = x.size(0);
  const auto acc_dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto grouped = x.reshape({batch, groups_, -1}).to(acc_dtype);
  const auto moments = moments_of(x, groups_, others);
  const auto mean = moments[1] / moments[0];
  const auto variance = (moments[2] / moments[0] - mean.square()).clamp_min(0);
  const auto inverse = (variance + eps_).rsqrt();
  const auto normal = (grouped - mean.to(acc_dtype).unsqueeze(2)) * inverse.to(acc_dtype).unsqueeze(2);
  const auto affine = normal.reshape(x.sizes()) * weight_.to(acc_dtype).view({1, -1, 1, 1}) +
                      bias_.to(acc_dtype).view({1, -1, 1, 1});
  return affine.to(x.scalar_type());
}

at::Tensor sum(const Unbiased& a, const Unbiased& b) {
  if (!a.x.is_cuda()) return b.x + a.x;
  const auto from = laid_out(b.x);
  const auto bias =
      a.bias.defined() && b.bias.defined() ? a.bias + b.bias : (a.bias.defined() ? a.bias : b.bias);
  ENSURE(a.x.is_contiguous(kLast) && a.x.sizes() == from.sizes());
  kernels::add_pixels(launch_target_of(from), dtype_of(from), a.x.data_ptr(), pixels_of(from, bias));
  return a.x;
}

at::Tensor upsample2(const at::Tensor& x) {
  if (x.size(2) == 0) return at::empty({x.size(0), x.size(1), 0, 2 * x.size(3)}, x.options());
  return at::upsample_nearest2d(x, at::IntArrayRef{2 * x.size(2), 2 * x.size(3)});
}

}  // namespace atelier::nn
