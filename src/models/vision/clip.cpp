// CLIP's picture tower, a vision transformer. Radford et al. (arXiv 2103.00020); upstream: transformers
// modeling_clip.py CLIPVisionTransformer.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"
#include "models/image_encoder.h"
#include "models/text/clip_layers.h"

namespace atelier::models {
namespace {

using namespace nn;

struct ClipVisionConfig {
  ClipSizes sizes;
  int64_t layers, side, cell;

  explicit ClipVisionConfig(const Json& j) {
    const ConfigReader read(j, "image_encoder/config.json");
    sizes.width = read.positive("hidden_size", 768);
    sizes.inner = read.positive("intermediate_size", 3072);
    sizes.heads = read.positive("num_attention_heads", 12);
    sizes.eps = read.above_zero("layer_norm_eps", 1e-5);
    sizes.activation = find_activation(read.text("hidden_act", "quick_gelu"), "image_encoder: hidden_act");
    layers = read.layers("num_hidden_layers", 12);
    side = read.positive("image_size", 224, 1 << 16);
    cell = read.positive("patch_size", 32, 1 << 16);
    if (read.positive("num_channels", 3) != 3)
      throw Error(Kind::kCheckpoint, "image_encoder/config.json: num_channels must be 3");
    if (side % cell != 0)
      throw Error(Kind::kCheckpoint, str("image_encoder/config.json: image_size ", side,
                                         " is no multiple of patch_size ", cell));
  }
};

class ClipVision : public ImageEncoder {
 public:
  ClipVision(const ClipVisionConfig& c, const Builder& b)
      : c_(c), first_(b.layer_norm("pre_norm", c.sizes.width, c.sizes.eps)) {
    const int64_t cells = (c.side / c.cell) * (c.side / c.cell), width = c.sizes.width;
    const auto e = b / "embeddings";
    class_ = e.buffer("class_embedding", {width});
    cells_ = e.buffer("patch_embedding.weight", {width, 3, c.cell, c.cell});
    positions_ = e.buffer("position_embedding.weight", {cells + 1, width});
    // The states are those before the last layer.
    for (int64_t i = 0; i + 1 < c.layers; ++i) layers_.emplace_back(c.sizes, b / "encoder" / "layers" / i);
  }

  at::Tensor encode(const at::Tensor& pixels) const override {
    const int64_t n = pixels.size(0), p = c_.cell, grid = c_.side / p;
    if (pixels.size(2) != c_.side || pixels.size(3) != c_.side)
      throw Error(Kind::kCheckpoint, str("the image processor makes pictures of ", pixels.size(3), "x",
                                         pixels.size(2), ", image_encoder takes ", c_.side, "x", c_.side));
    const auto cells = pixels.to(cells_.options())
                           .reshape({n, 3, grid, p, grid, p})
                           .permute({0, 2, 4, 1, 3, 5})
                           .reshape({n, grid * grid, 3 * p * p});
    const auto first = class_.view({1, 1, -1}).expand({n, 1, -1});
    auto x = first_(at::cat({first, at::linear(cells, cells_.flatten(1))}, 1) + positions_);
    for (const auto& layer : layers_) x = layer(x, {});
    return x;
  }

 private:
  ClipVisionConfig c_;
  at::Tensor class_, cells_, positions_;
  LayerNorm first_;
  std::vector<ClipLayer> layers_;
};

// transformers' names, then those of open_clip.
std::vector<weights::NameRule> names() {
  std::vector<weights::NameRule> names{
      {"embeddings", {{"vision_model.embeddings"}}},
      {"encoder", {{"vision_model.encoder"}}},
      {"pre_norm", {{"vision_model.pre_layrnorm"}}},
      {"pre_norm", {{"pre_layrnorm"}}},
      {"embeddings.class_embedding", {{"visual.class_embedding"}}},
      {"embeddings.patch_embedding", {{"visual.conv1"}}},
      {"embeddings.position_embedding.weight", {{"visual.positional_embedding"}}},
      {"pre_norm", {{"visual.ln_pre"}}}};
  add_clip_layer_names("vision_model.", "visual.transformer.resblocks.{}.", names);
  return names;
}

std::unique_ptr<ImageEncoder> build(const Json& config, const Builder& b) {
  return std::make_unique<ClipVision>(ClipVisionConfig(config), b);
}

int64_t width(const Json& config) {
  return ClipVisionConfig(config).sizes.width;
}

}  // namespace

// Whole models too: their picture tower is what is read, without its last layer.
extern const ImageEncoderFamily kClipVision{
    .classes = {"CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel"},
    .names = names,
    .ignorable = {"*position_ids", "*encoder.layers.*", "*post_layernorm.*",
                  "*visual.transformer.resblocks.*", "visual.ln_post.*", "visual.proj",
                  "visual_projection.weight", "text_model.*", "text_projection.weight", "logit_scale"},
    .build = build,
    .width = width};

}  // namespace atelier::models
