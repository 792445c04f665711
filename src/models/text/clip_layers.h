// A layer of CLIP's towers, of text and of pictures.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/text/activation.h"
#include "nn/builder.h"
#include "weights/names.h"

namespace atelier::models {

struct ClipSizes {
  int64_t width, inner, heads;
  double eps;
  ActivationFunction activation;
};

struct ClipLayer {
  // Throws Error(kCheckpoint) for a width that heads do not divide.
  ClipLayer(const ClipSizes& sizes, const nn::Builder& b);
  // x [B, T, C] -> the same; bias: added to the scores, undefined: none.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& bias) const;

 private:
  at::Tensor attention(const at::Tensor& x, const at::Tensor& bias) const;

  ClipSizes sizes_;
  nn::LayerNorm norm1_, norm2_;
  nn::Linear qkv_, out_, up_, down_;
};

// Of the layers of a tower, "encoder.layers.{}" here: transformers' names, before which folders have `tower`
// or not, then those of open_clip, which calls a layer `open`.
void add_clip_layer_names(const std::string& tower, const std::string& open,
                          std::vector<weights::NameRule>& names);

}  // namespace atelier::models
