#include "models/text/clip_layers.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "base/error.h"
#include "nn/sdpa.h"

namespace atelier::models {

ClipLayer::ClipLayer(const ClipSizes& sizes, const nn::Builder& b)
    : sizes_(sizes),
      norm1_(b.layer_norm("layer_norm1", sizes.width, sizes.eps)),
      norm2_(b.layer_norm("layer_norm2", sizes.width, sizes.eps)) {
  if (sizes.width % sizes.heads != 0)
    throw Error(Kind::kCheckpoint, str("CLIP: ", sizes.width, " channels over ", sizes.heads, " heads"));
  const auto a = b / "self_attn", m = b / "mlp";
  qkv_ = a.linear("qkv", sizes.width, 3 * sizes.width);
  out_ = a.linear("out_proj", sizes.width, sizes.width);
  up_ = m.linear("fc1", sizes.width, sizes.inner);
  down_ = m.linear("fc2", sizes.inner, sizes.width);
}

at::Tensor ClipLayer::operator()(const at::Tensor& x, const at::Tensor& bias) const {
  const auto attended = x + attention(norm1_(x), bias);
  return attended + down_(sizes_.activation(up_(norm2_(attended))));
}

at::Tensor ClipLayer::attention(const at::Tensor& x, const at::Tensor& bias) const {
  const int64_t d = sizes_.width / sizes_.heads;
  const auto split = [&](const at::Tensor& t) { return t.unflatten(-1, {sizes_.heads, d}).transpose(1, 2); };
  const auto t = qkv_.parts(x, 3);
  const auto o =
      nn::attend(split(t[0]), split(t[1]), split(t[2]), bias, 1.0 / std::sqrt(static_cast<double>(d)));
  return out_(o.transpose(1, 2).flatten(2));
}

void add_clip_layer_names(const std::string& tower, const std::string& open,
                          std::vector<weights::NameRule>& names) {
  const std::string layer = "encoder.layers.{}.", at = layer + "self_attn.", old = tower + at;
  const std::vector<weights::NameRule> rules{
      {at + "qkv", {{old + "q_proj"}, {old + "k_proj"}, {old + "v_proj"}}},
      {at + "qkv", {{at + "q_proj"}, {at + "k_proj"}, {at + "v_proj"}}},
      {layer + "layer_norm1", {{open + "ln_1"}}},
      {layer + "layer_norm2", {{open + "ln_2"}}},
      {at + "qkv.weight", {{open + "attn.in_proj_weight"}}},
      {at + "qkv.bias", {{open + "attn.in_proj_bias"}}},
      {at + "out_proj", {{open + "attn.out_proj"}}},
      {layer + "mlp.fc1", {{open + "mlp.c_fc"}}},
      {layer + "mlp.fc2", {{open + "mlp.c_proj"}}}};
  names.insert(names.end(), rules.begin(), rules.end());
}

}  // namespace atelier::models
