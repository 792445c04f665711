// The block of Wan's transformer, which VACE's control stream has too.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <string_view>
#include <vector>

#include "models/wan/config.h"
#include "nn/builder.h"
#include "nn/state.h"

namespace atelier::models {

// What a block adds its own numbers to: shift, scale and gate of all tokens held here, before self attention
// and before the MLP. Latents that are given come first and have a modulation of their own.
struct WanModulations {
  std::vector<nn::ModulatedTokens> attention, mlp;
};
// Of tables of six parts. first_frame: tokens in front that are given wherever the request gives any.
WanModulations wan_modulations(const nn::ModulationTable& table, const nn::State& s, int64_t width);

// The context that blocks attend to: states of the pictures, then of the text, [T, B, C].
struct WanContext {
  at::Tensor tokens;
  int64_t pictures = 0;  // tokens of them
};

struct WanBlock {
  nn::ModulationTable mod;
  nn::Linear qkv, out, cross_q, cross_kv, image_kv, cross_out, up, down;
  nn::AcrossHeadsNorm norm_q, norm_k, cross_norm_q, cross_norm_k, norm_image_k;
  nn::LayerNorm cross_norm;
  nn::Attention attend;
  nn::CrossAttention cross, cross_image;
  int64_t width, head_dim;

  // stream: whose tokens attend to each other.
  WanBlock(const WanConfig& c, const nn::Builder& b, const nn::ModulationTable& shared, int stream);

  // Keys and values of the prompt and of the pictures, two attentions whose results are added.
  void begin(nn::RequestContext& context, int64_t picture_tokens) const;
  // x [tokens of the stream, B, C] contiguous, in place.
  void operator()(const nn::CallContext& f, const nn::State& s, const nn::Rope& rope,
                  const at::Tensor& x) const;

 private:
  at::Tensor attended(const nn::CallContext& f, const nn::Activation& x, const nn::Rope& rope) const;
  at::Tensor cross_attended(const nn::State& s, const at::Tensor& x) const;
};

}  // namespace atelier::models
