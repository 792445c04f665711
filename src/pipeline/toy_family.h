// A family for tests, registered nowhere: two token streams, cross attention to a second text whose padding
// is hidden, a pooled text, one modulation linear for all blocks (adaLN-single), classifier-free guidance.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/family.h"
#include "nn/embedding.h"
#include "nn/patchify.h"

namespace atelier::pipeline::toy {

enum Stream { kText, kImage, kJoint };

struct ToyConfig {
  Dim heads;
  int64_t width, channels, text_width, pooled_width;
  int blocks;
  explicit ToyConfig(const Json& j)
      : heads{j.at("heads").get<int64_t>(), j.at("head_dim").get<int64_t>()},
        width(heads.size()),
        channels(j.at("channels").get<int64_t>()),
        text_width(j.at("text_width").get<int64_t>()),
        pooled_width(j.at("pooled_width").get<int64_t>()),
        blocks(j.at("blocks").get<int>()) {}
};

// Every component of a pipeline of this family, as ModelRepo::random takes them.
inline Json configs() {
  return Json::parse(R"({
    "_class_name": "ToyPipeline",
    "transformer": {"heads": 5, "head_dim": 8, "channels": 12, "text_width": 24, "pooled_width": 16, "blocks": 4},
    "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [4, 8], "layers_per_block": 1,
      "norm_num_groups": 2, "latent_channels": 3, "sample_size": 16, "scaling_factor": 0.5},
    "text_encoder": {"architectures": ["CLIPTextModel"], "hidden_size": 16, "intermediate_size": 32,
      "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64, "max_position_embeddings": 77,
      "projection_dim": 16, "eos_token_id": 2, "hidden_act": "quick_gelu"},
    "text_encoder_2": {"architectures": ["T5EncoderModel"], "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2,
      "num_heads": 3, "vocab_size": 64, "feed_forward_proj": "gated-gelu"},
    "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
  })");
}

// PixArt's block with joint self attention: norm, modulate, attend, gate; cross attention without norm or
// gate; norm, modulate, MLP, gate.
struct ToyBlock {
  nn::ModulationTable mod;
  nn::Linear qkv, out, cross_q, cross_kv, cross_out, up, down;
  nn::HeadNorm norm_q, norm_k;
  nn::Attention attend;
  nn::CrossAttention cross;
  int64_t width, head_dim;

  ToyBlock(const ToyConfig& c, const nn::Builder& b, const nn::ModulationTable& shared)
      : mod(b.offset_table("scale_shift_table", shared, {6, c.width})),
        qkv(b.expand("qkv", c.width, {c.heads, c.heads, c.heads})),
        out(b.contract("out", {c.heads}, c.width)),
        cross_q(b.expand("cross.q", c.width, {c.heads})),
        cross_kv(b.expand("cross.kv", c.width, {c.heads, c.heads})),
        cross_out(b.contract("cross.out", {c.heads}, c.width)),
        up(b.expand("up", c.width, {Dim{4 * c.width}})),
        down(b.contract("down", {Dim{4 * c.width}}, c.width)),
        norm_q(b.head_norm("norm_q", c.heads)),
        norm_k(b.head_norm("norm_k", c.heads)),
        attend(b.attention("attn", {kText, kImage}, c.heads)),
        cross(b.cross_attention(c.heads)),
        width(c.width),
        head_dim(c.heads.unit) {}

  void begin(nn::RequestContext& context, std::span<const int64_t> lengths) const {
    const auto kv = cross_kv(context.prompt).unflatten(-1, {2, -1, head_dim});
    cross.begin(context, {.k = kv.select(2, 0), .v = kv.select(2, 1), .norm_k = &norm_k}, lengths);
  }
  void operator()(const nn::CallContext& f, nn::State& s) const {
    const auto m = nn::modulations(mod, s, width);
    const auto o = attend(
        f, {nn::split_qkv(qkv(nn::norm(s.x, m.attention)), head_dim, norm_q, norm_k, s.ropes[kJoint])});
    nn::gated_(s.x, m.attention.gate, out(o));
    auto image = s.stream(kImage);
    const auto q = cross_q(image).unflatten(-1, {-1, head_dim});
    image.add_(cross_out(cross(s, {.q = q, .norm_q = &norm_q, .rope = &s.ropes[kImage]})));
    nn::gated_(s.x, m.mlp.gate, down(nn::gelu_tanh(up, nn::norm(s.x, m.mlp))));
  }
};

class ToyTransformer : public nn::Model {
 public:
  ToyTransformer(const ToyConfig& c, const nn::Builder& b, std::span<const Range> mine)
      : c_(c), options_(b.options()) {
    time_ = {b.linear("time.linear_1", 32, c.width), b.linear("time.linear_2", c.width, c.width)};
    pooled_ = b.linear("pooled", c.pooled_width, c.width);
    caption_ = b.linear("caption", c.text_width, c.width);
    const auto shared = b.table("shared", c.width, 6 * c.width);
    for (const Range& r : mine) {
      for (auto i = static_cast<int>(r.begin); i < r.end(); ++i) {
        blocks_.emplace(i, ToyBlock(c, b.block(i) / "blocks" / i, shared));
        b.finish_block(i);
      }
    }
    image_in_ = b.linear("image_in", c.channels, c.width);
    text_in_ = b.linear("text_in", c.pooled_width, c.width);
    last_ = b.embedding_table("scale_shift_table", {2, c.width});
    image_out_ = b.linear("image_out", c.width, c.channels);
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return c_.blocks; }

  nn::RequestContext begin(const nn::CallContext&, const nn::Conditioning& given,
                           std::span<const float> timesteps) override {
    const auto t = at::tensor(at::ArrayRef<float>(timesteps.data(), timesteps.size()));
    const auto time = time_(nn::sinusoid(t, 32).to(options_)).unsqueeze(1);
    const auto embedding = time + pooled_(given.whole.at("pooled").to(options_)).unsqueeze(0);
    nn::RequestContext context{.tables = tables_->evaluate(at::silu(embedding), embedding),
                               .width = c_.width};
    context.prompt = caption_(given.whole.at("text").transpose(0, 1).to(options_));
    context.streams = {text_in_(given.streams[0].to(options_))};
    return context;
  }
  void begin_block(int i, const nn::Conditioning& given, nn::RequestContext& context) override {
    blocks_.at(i).begin(context, given.lengths);
  }
  void enter(const nn::CallContext&, nn::State& s) override {
    const int64_t axes[] = {2, 2, c_.heads.unit - 4};
    const auto rope = [&](const at::Tensor& at) { return nn::rope_of(at, axes, 100, options_); };
    s.ropes = {rope(s.positions[kText]), rope(s.positions[kImage]), rope(at::cat(s.positions))};
  }
  void embed(const nn::CallContext&, nn::State& s, const at::Tensor& latents) override {
    const auto image = image_in_(latents.to(options_.dtype()));
    s.x = s.n[kText] > 0 ? at::cat({s.context->streams[0], image}) : image;
  }
  void block(int i, const nn::CallContext& f, nn::State& s) override { blocks_.at(i)(f, s); }
  at::Tensor head(const nn::CallContext&, nn::State& s) override {
    const auto m = nn::chunks(last_, s, 2);
    return image_out_(nn::norm(s.stream(kImage), {m[0], m[1], {}}));
  }

 private:
  ToyConfig c_;
  at::TensorOptions options_;
  nn::SiluMlp time_;
  nn::Linear pooled_, caption_, image_in_, text_in_, image_out_;
  nn::ModulationTable last_;
  std::map<int, ToyBlock> blocks_;
  std::shared_ptr<nn::ModulationTables> tables_;
};

inline models::Grid grid(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t frames) {
  const int64_t rows = height / (2 * spatial), cols = width / (2 * spatial), c = ToyConfig(config).channels;
  if (rows < 1 || cols < 1) throw Error(Kind::kUsage, "the toy draws nothing so small");
  return {.frames = frames,
          .rows = rows,
          .cols = cols,
          .channels = c,
          .latent_channels = c / 4,
          .latent_rows = 2 * rows,
          .latent_cols = 2 * cols};
}

inline at::Tensor coordinates(const Json&, const models::Grid& g, int stream, int64_t tokens) {
  if (stream == kImage) return nn::grid_coordinates(g.rows, g.cols);
  return at::zeros({tokens, 3}, at::TensorOptions(at::kLong));
}

// The first encoder is a token stream and gives the pooled text, the second is attended to.
inline nn::Conditioning condition(models::Encoders& encoders, const models::PromptBatch& p) {
  const auto clip = encoders.encode({.encoder = "text_encoder", .length = 77, .layer = -2}, p.texts[0]);
  const auto t5 = encoders.encode({.encoder = "text_encoder_2",
                                   .length = p.max_sequence_length,
                                   .padding = models::TextCall::Padding::kMasked},
                                  p.texts[1]);
  return {.streams = {clip.states.transpose(0, 1).contiguous()},
          .whole = {{"pooled", clip.pooled}, {"text", t5.states}},
          .lengths = t5.lengths};
}

inline ModelFacts facts(const Json& j) {
  const ToyConfig c(j);
  return {.heads = static_cast<int>(c.heads.count), .blocks = c.blocks};
}

inline const models::Family& family() {
  static const models::Family toy{
      .name = "toy",
      .pipeline = "ToyPipeline",
      .denoiser = "ToyTransformer",
      .experts = {"transformer"},
      .encoders = {{"text_encoder", "tokenizer"}, {"text_encoder_2", "tokenizer_2"}},
      .streams = {{"text", models::StreamSpec::kJoint, true}, {"image", models::StreamSpec::kLatent}},
      .guidance_scale = models::GuidanceScale::kClassifierFree,
      .most_text_tokens = 64,
      .prompts = 2,
      .sigmas = models::Sigmas::kLinearToInverse,
      .facts = facts,
      .defaults = [](const Json&) { return models::SamplingDefaults{}; },
      .grid = grid,
      .pack = nn::pack_2x2,
      .unpack = [](const at::Tensor& tokens,
                   const models::Grid& g) { return nn::unpack_2x2(tokens, g.rows, g.cols); },
      .coordinates = coordinates,
      .condition = condition,
      .names = [](const Json&) { return std::vector<weights::NameRule>{}; },
      .build = [](const Json& j, const nn::Builder& b, std::span<const Range> blocks)
          -> std::unique_ptr<nn::Model> { return std::make_unique<ToyTransformer>(ToyConfig(j), b, blocks); },
  };
  return toy;
}

}  // namespace atelier::pipeline::toy
