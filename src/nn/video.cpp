#include "nn/video.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "base/check.h"
#include "kernels/pictures.h"
#include "nn/launch_target.h"

namespace atelier::nn {
namespace {

constexpr double kLeastLength = 1e-12;  // torch's normalize

std::optional<at::Tensor> optional_of(const at::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}

// [B, frames, rows, W, C] -> [B, C, frames, rows, W], of the same memory.
at::Tensor channels_first(const at::Tensor& frames) {
  return frames.permute({0, 4, 1, 2, 3});
}

// The sizes of such frames, but as many as that.
std::vector<int64_t> with_frames(const at::Tensor& frames, int64_t count) {
  auto sizes = frames.sizes().vec();
  sizes[1] = count;
  return sizes;
}

// A copy: a view would keep all.
at::Tensor last(const at::Tensor& frames, int64_t count) {
  return frames.narrow(1, frames.size(1) - count, count).clone(at::MemoryFormat::Contiguous);
}

}  // namespace

at::Tensor frames_of(const at::Tensor& x, int64_t batch) {
  ENSURE(batch > 0 && x.size(0) % batch == 0);
  return x.permute({0, 2, 3, 1})
      .contiguous()
      .view({batch, x.size(0) / batch, x.size(2), x.size(3), x.size(1)});
}

at::Tensor pictures_of(const at::Tensor& frames) {
  const auto f = frames.contiguous();
  return f.view({f.size(0) * f.size(1), f.size(2), f.size(3), f.size(4)}).permute({0, 3, 1, 2});
}

at::Tensor CausalConv3d::with_history(const at::Tensor& x, int64_t batch, at::Tensor& history) const {
  const int64_t halo = shape_.kernel / 2, past = shape_.history();
  auto* const others = with_others(rows_);
  auto frames = frames_of(others && halo > 0 ? others->pad(x, halo, halo) : x, batch);
  if (!history.defined()) history = at::zeros(with_frames(frames, past), frames.options());
  frames = at::cat({history, frames}, 1);
  history = last(frames, past);
  return frames;
}

at::Tensor CausalConv3d::with_history(const ChannelNorm& norm, const Unbiased& x, int64_t batch,
                                      at::Tensor& history) const {
  if (with_others(rows_)) return with_history(norm.silu(x), batch, history);
  const auto chunk = frames_of(x.x, batch);
  const int64_t past = shape_.history(), count = chunk.size(1);
  auto frames = at::empty(with_frames(chunk, past + count), chunk.options());
  const auto before = frames.narrow(1, 0, past);
  history.defined() ? before.copy_(history) : before.zero_();
  for (int64_t b = 0; b < batch; ++b)
    norm.run(frames.select(0, b).narrow(0, past, count), chunk.select(0, b), x.bias,
             kernels::Nonlinearity::kSilu);
  history = last(frames, past);
  return frames;
}

at::Tensor CausalConv3d::run(const at::Tensor& frames, int64_t rows, const at::Tensor& bias) const {
  const int64_t left = (frames.size(1) - shape_.frames) / shape_.frame_stride + 1;
  if (rows == 0)
    return pictures_of(
        at::empty({frames.size(0), left, 0, frames.size(3), weight_.size(0)}, frames.options()));
  const int64_t halo = shape_.kernel / 2;
  const auto y = at::conv3d(channels_first(frames), weight_, optional_of(bias),
                            at::IntArrayRef{shape_.frame_stride, 1, 1},
                            at::IntArrayRef{0, with_others(rows_) && halo > 0 ? 0 : halo, halo});
  return pictures_of(y.permute({0, 2, 3, 4, 1}).contiguous());
}

at::Tensor CausalConv3d::operator()(const at::Tensor& x, int64_t batch, at::Tensor& history) const {
  return run(with_history(x, batch, history), x.size(2), bias_);
}

at::Tensor CausalConv3d::of_silu(const ChannelNorm& norm, const Unbiased& x, int64_t batch,
                                 at::Tensor& history) const {
  return run(with_history(norm, x, batch, history), x.x.size(2), bias_);
}

Unbiased CausalConv3d::unbiased_of_silu(const ChannelNorm& norm, const Unbiased& x, int64_t batch,
                                        at::Tensor& history) const {
  if (!x.x.is_cuda()) return {of_silu(norm, x, batch, history), {}};
  return {run(with_history(norm, x, batch, history), x.x.size(2), {}), bias_};
}

void CausalConv3d::remember(const at::Tensor& x, int64_t batch, at::Tensor& history) const {
  with_history(x, batch, history);
}

at::Tensor CausalConv3d::operator()(const at::Tensor& x) const {
  ENSURE(shape_.history() == 0 && shape_.kernel == 1);
  return run(frames_of(x, 1), x.size(2), bias_);
}

Unbiased CausalConv3d::unbiased(const at::Tensor& x) const {
  if (!x.is_cuda()) return {(*this)(x), {}};
  ENSURE(shape_.history() == 0 && shape_.kernel == 1);
  return {run(frames_of(x, 1), x.size(2), {}), bias_};
}

at::Tensor ChannelNorm::operator()(const at::Tensor& x) const {
  const auto frames = frames_of(x, 1);
  auto out = at::empty_like(frames);
  run(out[0], frames[0], {}, kernels::Nonlinearity::kNone);
  return pictures_of(out);
}

at::Tensor ChannelNorm::silu(const Unbiased& x) const {
  const auto frames = frames_of(x.x, 1);
  auto out = at::empty_like(frames);
  run(out[0], frames[0], x.bias, kernels::Nonlinearity::kSilu);
  return pictures_of(out);
}

void ChannelNorm::run(const at::Tensor& out, const at::Tensor& x, const at::Tensor& bias,
                      kernels::Nonlinearity nonlinearity) const {
  ENSURE(out.is_contiguous() && x.is_contiguous() && out.sizes() == x.sizes());
  const int64_t channels = x.size(-1), row = channels * x.element_size(), positions = x.numel() / channels;
  const auto where = launch_target_of(x);
  const kernels::ChannelRule rule{std::sqrt(static_cast<double>(channels)), kLeastLength,
                                  weight_.const_data_ptr(), nonlinearity};
  const auto* from = static_cast<const char*>(x.const_data_ptr());
  auto* to = static_cast<char*>(out.data_ptr());
  const void* lacking = bias.defined() ? bias.const_data_ptr() : nullptr;
  const auto range = [&](int64_t begin, int64_t end) {
    kernels::channel_norm(where, dtype_of(x), to + begin * row,
                          {from + begin * row, lacking, 1, end - begin, channels}, rule);
  };
  where.cuda ? range(0, positions) : at::parallel_for(0, positions, grain(channels), range);
}

at::Tensor BlockMean::operator()(const at::Tensor& x, int64_t batch) const {
  auto f = frames_of(x, batch);
  const int64_t missing = (time - f.size(1) % time) % time;
  if (missing > 0) f = at::constant_pad_nd(f, {0, 0, 0, 0, 0, 0, missing, 0});
  const int64_t frames = f.size(1) / time, rows = f.size(2) / side, cols = f.size(3) / side;
  const int64_t group = f.size(4) * time * side * side / channels;
  const auto blocks = f.reshape({batch, frames, time, rows, side, cols, side, f.size(4)})
                          .permute({0, 1, 3, 5, 7, 2, 4, 6})  // channel, then the place in the block
                          .reshape({batch, frames, rows, cols, channels, group});
  return pictures_of(blocks.mean(-1));
}

at::Tensor BlockRepeat::operator()(const at::Tensor& x, int64_t batch) const {
  const auto f = frames_of(x, batch);
  const int64_t repeats = channels * time * side * side / f.size(4);
  const int64_t frames = f.size(1), rows = f.size(2), cols = f.size(3);
  return pictures_of(f.unsqueeze(-1)
                         .expand({batch, frames, rows, cols, f.size(4), repeats})
                         .reshape({batch, frames, rows, cols, channels, time, side, side})
                         .permute({0, 1, 5, 2, 6, 3, 7, 4})
                         .reshape({batch, frames * time, rows * side, cols * side, channels}));
}

}  // namespace atelier::nn
