// Layers of video autoencoders, which go through a video chunk by chunk.
//
// The frames of a chunk are pictures one after another, [B * frames, C, rows, W], sample by sample, so that
// layers of pictures take them as they are. Their channels lie last in memory on every device: the same
// numbers are [B, frames, rows, W, C]. Rows may be held by several ranks.
#pragma once
#include <ATen/core/Tensor.h>

#include <deque>
#include <utility>

#include "nn/conv.h"
#include "nn/seams.h"

namespace atelier::nn {

// [B * frames, C, rows, W] -> [B, frames, rows, W, C], contiguous; and back. A copy only where the
// numbers lie otherwise.
at::Tensor frames_of(const at::Tensor& pictures, int64_t batch);
at::Tensor pictures_of(const at::Tensor& frames);

// What causal convolutions remember from chunk to chunk, each in its place in the order of calls.
class FrameCache {
 public:
  void rewind() { next_ = 0; }  // a chunk begins
  // Of the next convolution; undefined: it has seen no frame.
  at::Tensor& next() {
    if (next_ == kept_.size()) kept_.emplace_back();
    return kept_[next_++];
  }

 private:
  std::deque<at::Tensor> kept_;
  size_t next_ = 0;
};

// Each position over the root mean square of its channels, times a weight. Zhang and Sennrich (arXiv
// 1910.07467).
class ChannelNorm {
 public:
  ChannelNorm() = default;
  explicit ChannelNorm(at::Tensor weight) : weight_(std::move(weight)) {}  // [C]
  at::Tensor operator()(const at::Tensor& x) const;
  at::Tensor silu(const Unbiased& x) const;  // of the norm

 private:
  friend class CausalConv3d;
  // The same into `out`; both [f, rows, W, C], contiguous. bias: that x lacks, or undefined.
  void run(const at::Tensor& out, const at::Tensor& x, const at::Tensor& bias,
           kernels::Nonlinearity nonlinearity) const;
  at::Tensor weight_;
};

// Kernels over time x rows x columns. Rows and columns stay as many; of the frames every stride-th remains.
struct Conv3dShape {
  int64_t frames = 3, kernel = 3, frame_stride = 1;
  // Frames before a chunk that its first results need.
  int64_t history() const { return frames - frame_stride; }
};

// A convolution that sees no frame behind the one it makes. Before a video's first frame are zeros.
class CausalConv3d {
 public:
  CausalConv3d() = default;
  // weight [out, in, frames, kernel, kernel], bias [out]
  CausalConv3d(at::Tensor weight, at::Tensor bias, Conv3dShape shape, RowHalo* rows)
      : weight_(std::move(weight)), bias_(std::move(bias)), shape_(shape), rows_(rows) {}

  // x [B * f, in, rows, W] -> [B * f / stride, out, rows, W]. history: [B, shape.history(), rows with halo,
  // W, in], the frames before; then the last of these.
  at::Tensor operator()(const at::Tensor& x, int64_t batch, at::Tensor& history) const;
  // Of norm.silu(x), which is written where the convolution reads it.
  at::Tensor of_silu(const ChannelNorm& norm, const Unbiased& x, int64_t batch, at::Tensor& history) const;
  Unbiased unbiased_of_silu(const ChannelNorm& norm, const Unbiased& x, int64_t batch,
                            at::Tensor& history) const;
  // The chunk passes by, and is remembered.
  void remember(const at::Tensor& x, int64_t batch, at::Tensor& history) const;
  // Of kernels of one frame.
  at::Tensor operator()(const at::Tensor& x) const;
  Unbiased unbiased(const at::Tensor& x) const;

 private:
  // [B, history + f, rows with halo, W, in]; history moves on.
  at::Tensor with_history(const at::Tensor& x, int64_t batch, at::Tensor& history) const;
  at::Tensor with_history(const ChannelNorm& norm, const Unbiased& x, int64_t batch,
                          at::Tensor& history) const;
  at::Tensor run(const at::Tensor& frames, int64_t rows, const at::Tensor& bias) const;
  at::Tensor weight_, bias_;
  Conv3dShape shape_;
  RowHalo* rows_ = nullptr;
};

// Means over blocks of `time` frames x `side` rows x `side` columns and over neighbouring channels, as many
// as leave `channels`; missing frames in front are zeros.
struct BlockMean {
  int64_t channels, time = 1, side = 1;
  at::Tensor operator()(const at::Tensor& x, int64_t batch) const;
};

// Every channel repeated until blocks of `time` frames x `side` rows x `side` columns are full.
struct BlockRepeat {
  int64_t channels, time = 1, side = 2;
  at::Tensor operator()(const at::Tensor& x, int64_t batch) const;
};

}  // namespace atelier::nn
