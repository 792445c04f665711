// CLIP's text tower. Radford et al. (arXiv 2103.00020); upstream: transformers modeling_clip.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/full.h>
#include <ATen/ops/take_along_dim.h>
#include <ATen/ops/where.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/config.h"
#include "models/text/clip_layers.h"
#include "models/text/encoders.h"

namespace atelier::models {
namespace {

using namespace nn;

struct ClipConfig {
  int64_t width, inner, layers, heads, vocabulary, positions, projection, eos;
  double eps;
  bool projects;
  ActivationFunction activation;

  explicit ClipConfig(const Json& j) {
    const ConfigReader read(j, "text_encoder/config.json");
    width = read.positive("hidden_size", 512);
    inner = read.positive("intermediate_size", 2048);
    layers = read.layers("num_hidden_layers", 12);
    heads = read.positive("num_attention_heads", 8);
    vocabulary = read.positive("vocab_size", 49408);
    positions = read.positive("max_position_embeddings", 77);
    projection = read.positive("projection_dim", 512);
    eos = read.positive("eos_token_id", 49407);
    eps = read.above_zero("layer_norm_eps", 1e-5);
    projects = j.at("architectures").dump().find("WithProjection") != std::string::npos;
    if (width % heads != 0)
      throw Error(Kind::kCheckpoint, str("text encoder: ", width, " channels over ", heads, " heads"));
    activation = find_activation(read.text("hidden_act", "quick_gelu"), "text encoder: hidden_act");
  }
};

class Clip : public TextEncoder {
 public:
  Clip(const ClipConfig& c, const Builder& b)
      : c_(c),
        tokens_(b.buffer("embeddings.token_embedding.weight", {c.vocabulary, c.width})),
        positions_(b.buffer("embeddings.position_embedding.weight", {c.positions, c.width})),
        final_(b.layer_norm("final_layer_norm", c.width, c.eps)) {
    for (int64_t i = 0; i < c.layers; ++i)
      layers_.emplace_back(ClipSizes{c.width, c.inner, c.heads, c.eps, c.activation},
                           b / "encoder" / "layers" / i);
    if (c.projects) projection_ = b.linear("text_projection", c.width, c.projection, Bias::kNo);
  }

  EncoderOutput encode(const at::Tensor& ids, const at::Tensor& mask) const override {
    const int64_t n = ids.size(1);
    if (n > c_.positions) {
      throw Error(Kind::kUsage,
                  str("a text of ", n, " tokens for an encoder with ", c_.positions, " positions"));
    }
    auto x = at::embedding(tokens_, ids) + positions_.narrow(0, 0, n);
    const auto bias = hidden_keys(n, mask, x);
    EncoderOutput e{.hidden = {x}};
    for (const auto& layer : layers_) {
      x = layer(x, bias);
      e.hidden.push_back(x);
    }
    e.states = final_(x);
    const auto at = end_positions(ids).view({-1, 1, 1}).expand({-1, 1, c_.width});
    e.pooled = at::take_along_dim(e.states, at, 1).squeeze(1);
    if (projection_) e.projected = projection_(e.pooled);
    return e;
  }

  at::Tensor final_norm(const at::Tensor& states) const override { return final_(states); }

 private:
  // -inf where a key lies ahead of the query or is padding.
  static at::Tensor hidden_keys(int64_t n, const at::Tensor& mask, const at::Tensor& like) {
    const auto minus = at::full({1}, -std::numeric_limits<double>::infinity(), like.options());
    const auto zero = at::full({1}, 0.0, like.options());
    const auto i = at::arange(n, like.options().dtype(at::kLong));
    auto hidden = (i.unsqueeze(0) > i.unsqueeze(1)).view({1, 1, n, n});
    if (mask.defined()) hidden = hidden.logical_or((mask == 0).view({-1, 1, 1, n}));
    return at::where(hidden, minus, zero);
  }

  // Old published configs say eos 2, which no vocabulary has: there the largest id marks the end.
  at::Tensor end_positions(const at::Tensor& ids) const {
    return c_.eos == 2 ? ids.argmax(-1) : (ids == c_.eos).to(at::kInt).argmax(-1);
  }

  ClipConfig c_;
  at::Tensor tokens_, positions_;
  LayerNorm final_;
  std::vector<ClipLayer> layers_;
  Linear projection_;
};

// Folders have the prefix or, if saved by transformers 5, not; then the names of open_clip.
std::vector<weights::NameRule> clip_names() {
  std::vector<weights::NameRule> names{
      {"embeddings", {{"text_model.embeddings"}}},
      {"encoder", {{"text_model.encoder"}}},
      {"final_layer_norm", {{"text_model.final_layer_norm"}}},
      {"embeddings.token_embedding", {{"token_embedding"}}},
      {"embeddings.position_embedding.weight", {{"positional_embedding"}}},
      {"final_layer_norm", {{"ln_final"}}},
      {.canonical = "text_projection.weight", .parts = {{"text_projection"}}, .is_transposed = true}};
  add_clip_layer_names("text_model.", "transformer.resblocks.{}.", names);
  return names;
}

EncoderWidths clip_widths(const Json& config) {
  const ClipConfig c(config);
  return {.states = c.width, .pooled = c.width, .projected = c.projects ? c.projection : 0};
}

std::unique_ptr<TextEncoder> build_clip(const Json& config, const Builder& b) {
  return std::make_unique<Clip>(ClipConfig(config), b);
}

}  // namespace

// Whole models too: their text tower is what is read.
const EncoderFamily kClip{
    .classes = {"CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"},
    .names = clip_names,
    .ignorable = {"*position_ids", "text_projection.weight", "text_projection", "vision_model.*",
                  "visual_projection.weight", "visual.*", "logit_scale"},
    .build = build_clip,
    .widths = clip_widths};

}  // namespace atelier::models
