// What the blocks of the UNet are made of. Podell et al., SDXL (arXiv 2307.01952); upstream: diffusers
// models/resnet.py, models/transformers/transformer_2d.py, models/attention.py.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "models/sdxl/config.h"
#include "nn/builder.h"
#include "nn/pyramid.h"

namespace atelier::models {

inline constexpr nn::ConvShape kSameSize{};  // 3x3

// Group norm, SiLU, 3x3, plus the embedding of the time; once more; plus what came in.
class UNetResnet {
 public:
  // scale: what the result is divided by.
  UNetResnet(const UNetConfig& config, const nn::Builder& b, int64_t in, int64_t out, double scale = 1);
  at::Tensor operator()(const nn::State& s,
                        const at::Tensor& x) const;  // [B, in, rows, W] -> [B, out, rows, W]

 private:
  nn::GroupNorm norm1_, norm2_;
  nn::Conv2d conv1_, conv2_;
  nn::ModulationTable time_;
  std::optional<nn::Conv2d> shortcut_;
  double scale_;
};

// Self attention, attention to the text, gated MLP; each behind a layer norm, added to what came in.
class UNetTransformerBlock {
 public:
  UNetTransformerBlock(const nn::Builder& b, Dim heads, int64_t text_width);
  // Keys and values of the text, once per request.
  void begin(nn::RequestContext& context) const;
  at::Tensor operator()(const nn::CallContext& f, const nn::State& s, at::Tensor x) const;  // [n, B, C]

 private:
  int64_t head_dim_;
  nn::LayerNorm norm1_, norm2_, norm3_;
  nn::Linear qkv_, out_, text_q_, text_kv_, text_out_, up_, down_;
  nn::Attention attend_;
  nn::CrossAttention attend_text_;
};

// The pixels of a picture through transformer blocks, added to it.
class UNetTransformer {
 public:
  UNetTransformer(const UNetConfig& config, const nn::Builder& b, const UNetLevel& level, int64_t blocks);
  void begin(nn::RequestContext& context) const;
  // name: of this module, for probes.
  at::Tensor operator()(const nn::PictureCall& at, const nn::State& s, const at::Tensor& x,
                        const std::string& name) const;  // [B, C, rows, W]

 private:
  at::Tensor enter(const at::Tensor& x) const;  // [B, C, rows, W] -> [n, B, inner]
  at::Tensor leave(const nn::PictureCall& at, const at::Tensor& tokens) const;
  nn::GroupNorm norm_;
  nn::Linear in_, out_;            // of tokens
  nn::Conv2d conv_in_, conv_out_;  // of the picture, in their place
  std::vector<UNetTransformerBlock> blocks_;
};

}  // namespace atelier::models
