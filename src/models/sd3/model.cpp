// Stable Diffusion 3 and 3.5: Esser et al. (arXiv 2403.03206), MMDiT. Image and text tokens have weights of
// their own and meet in joint attention; blocks with dual attention let the image attend to itself besides.
// Upstream: diffusers models/transformers/transformer_sd3.py, models/attention.py JointTransformerBlock,
// pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/blocks.h"
#include "models/family.h"
#include "models/network_inputs.h"
#include "models/patches.h"
#include "models/sd3/config.h"
#include "models/sd3/names.h"
#include "models/sd3/presets.h"
#include "nn/embedding.h"
#include "nn/patchify.h"

namespace atelier::models {
namespace {

using namespace nn;

enum Stream { kImage, kText };  // in the order of joint attention

// q, k and v of one stream, or k and v where its tokens do not ask. The queries and keys may be normalised.
struct Heads {
  Linear project;
  std::optional<HeadNorm> norm_q, norm_k;
  int64_t head_dim = 0;
  bool asks = true;

  Heads() = default;
  Heads(const Sd3Config& c, const Builder& b, bool has_queries = true)
      : project(has_queries ? b.expand("qkv", c.width, {c.heads, c.heads, c.heads})
                            : b.expand("kv", c.width, {c.heads, c.heads})),
        head_dim(c.heads.unit),
        asks(has_queries) {
    if (!c.qk_norm) return;
    if (asks) norm_q = b.head_norm("norm_q", c.heads, *c.qk_norm);
    norm_k = b.head_norm("norm_k", c.heads, *c.qk_norm);
  }
  // x [n, B, C]
  Projected operator()(const Activation& x) const {
    const auto t = project(x).unflatten(-1, {asks ? 3 : 2, -1, head_dim});
    const int64_t k = asks ? 1 : 0;
    return {.q = asks ? t.select(2, 0) : at::Tensor(),
            .k = t.select(2, k),
            .v = t.select(2, k + 1),
            .norm_q = norm_q ? &*norm_q : nullptr,
            .norm_k = norm_k ? &*norm_k : nullptr};
  }
};

struct Mlp {
  Linear up, down;

  Mlp() = default;
  Mlp(const Sd3Config& c, const Builder& b)
      : up(b.expand("up", c.width, {Dim{4 * c.width}})),
        down(b.contract("down", {Dim{4 * c.width}}, c.width)) {}
  at::Tensor operator()(const Activation& x) const { return down(gelu_tanh(up, x)); }
};

// Nobody reads the text behind the last block: there it gives keys and values only.
struct JointBlock {
  bool is_dual, is_last;
  ModulationTable image_mod, text_mod;
  Heads image, text, image2;
  Linear image_out, text_out, image2_out;
  Mlp image_mlp, text_mlp;
  Attention attend, attend2;  // joint; of the image alone

  JointBlock(const Sd3Config& c, const Builder& b, int i)
      : is_dual(c.is_dual(i)),
        is_last(i == c.layers - 1),
        image_mod(b.table("image.mod", c.width, (is_dual ? 9 : 6) * c.width)),
        text_mod(b.table("text.mod", c.width, (is_last ? 2 : 6) * c.width)),
        image(c, b / "image"),
        text(c, b / "text", !is_last),
        image_out(b.contract("image.out", {c.heads}, c.width)),
        image_mlp(c, b / "image"),
        attend(b.attention("attn", {kImage, kText}, c.heads,
                           is_last ? std::vector<int>{kImage} : std::vector<int>{})) {
    if (is_dual) {
      image2 = Heads(c, b / "image2");
      image2_out = b.contract("image2.out", {c.heads}, c.width);
      attend2 = b.attention("attn2", {kImage}, c.heads);
    }
    if (!is_last) {
      text_out = b.contract("text.out", {c.heads}, c.width);
      text_mlp = Mlp(c, b / "text");
    }
  }

  void operator()(const CallContext& f, State& s) const {
    const auto x = s.stream(kImage), y = s.stream(kText);
    const auto mx = chunks(image_mod, s, is_dual ? 9 : 6), my = chunks(text_mod, s, is_last ? 2 : 6);
    const Modulation of_text = is_last ? Modulation{my[1], my[0], {}}  // scale first: AdaLayerNormContinuous
                                       : Modulation{my[0], my[1], {}};
    auto joint = attend.start(f, {image(norm(x, {mx[0], mx[1], {}})), text(norm(y, of_text))});
    std::optional<Attention::PendingAttention> alone;
    if (is_dual) alone = attend2.start(f, {image2(norm(x, {mx[6], mx[7], {}}))});
    const auto o = attend.finish(std::move(joint));
    gated_(x, mx[2], image_out(o.narrow(0, 0, x.size(0))));
    if (is_dual) gated_(x, mx[8], image2_out(attend2.finish(std::move(*alone))));
    gated_(x, mx[5], image_mlp(norm(x, {mx[3], mx[4], {}})));
    if (is_last) return;
    gated_(y, my[2], text_out(o.narrow(0, x.size(0), y.size(0))));
    gated_(y, my[5], text_mlp(norm(y, {my[3], my[4], {}})));
  }
};

class Sd3 : public nn::Model {
 public:
  Sd3(const Sd3Config& c, const Builder& b, std::span<const Range> mine) : c_(c), options_(b.options()) {
    const auto embed = b / "time_text_embed";
    const auto mlp = [&](std::string_view name, int64_t in) {
      return silu_mlp(embed / name, in, c.width, c.width);
    };
    time_ = mlp("timestep_embedder", kSinusoid);
    pooled_ = mlp("text_embedder", c.pooled_width);
    for (int i = 0; i < c.layers; ++i) {
      if (!owns(mine, i)) continue;
      const auto of_block = b.block(i);
      blocks_.emplace(i, JointBlock(c, of_block / "joint" / i, i));
      of_block.finish_block(i);
    }
    if (owns(mine, 0)) {
      const auto pos = b / "pos_embed";
      const auto kernel = pos.buffer("proj.weight", {c.width, c.channels, kPatch, kPatch});
      image_in_ = {kernel.flatten(1), pos.buffer("proj.bias", {c.width}), nullptr};
      positions_ = pos.buffer("pos_embed", {1, c.most_patches * c.most_patches, c.width});
      text_in_ = b.linear("context_embedder", c.text_width, c.width);
    }
    if (owns(mine, c.layers - 1)) {
      last_ = b.table("norm_out.linear", c.width, 2 * c.width);
      out_ = b.linear("proj_out", c.width, kPatch * kPatch * c.channels);
    }
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return c_.layers; }

  RequestContext begin(const CallContext& f, const Conditioning& given,
                       std::span<const float> timesteps) override {
    const auto t = at::tensor(at::ArrayRef<float>(timesteps.data(), timesteps.size()));
    const auto time = time_(nn::sinusoid(t, kSinusoid).to(options_)).unsqueeze(1);  // [steps, 1, C]
    const auto condition = time + pooled_(given.whole.at("pooled").to(options_)).unsqueeze(0);
    probe(f, "time_text_embed", condition[0], nn::Recorder::kWhole);
    RequestContext context{.tables = tables_->evaluate(at::silu(condition)), .width = c_.width};
    if (text_in_) {
      context.streams = {text_in_(given.streams[0].to(options_))};
      probe(f, "context_embedder", context.streams[0], kText);
    }
    return context;
  }

  void enter(const CallContext&, State& s) override {
    if (!positions_.defined()) return;
    const auto rows = s.positions[kImage].select(1, 0).to(options_.device());
    s.position_embeddings = positions_[0].index_select(0, rows).unsqueeze(1);
  }

  void embed(const CallContext& f, State& s, const at::Tensor& latents) override {
    const auto image = image_in_(latents.to(options_.dtype())) + s.position_embeddings;
    probe(f, "pos_embed", image, kImage);
    s.x = s.n[kText] > 0 ? at::cat({image, s.context->streams[0]}) : image;
  }

  void block(int i, const CallContext& f, State& s) override {
    blocks_.at(i)(f, s);
    if (!f.probes) return;
    const auto name = str("transformer_blocks.", i);
    if (i < c_.layers - 1) probe(f, name + ".0", s.stream(kText), kText);
    probe(f, name + ".1", s.stream(kImage), kImage);
  }

  at::Tensor head(const CallContext& f, State& s) override {
    const auto m = chunks(last_, s, 2);  // scale first: AdaLayerNormContinuous
    const auto x = norm(s.stream(kImage), {m[1], m[0], {}});
    probe(f, "norm_out", x, kImage);
    const auto out = out_(x);
    probe(f, "proj_out", out, kImage);
    // Channels come (dy, dx, c), latents are packed (c, dy, dx).
    return out.unflatten(-1, {kPatch * kPatch, c_.channels}).transpose(-1, -2).flatten(-2);
  }

 private:
  static constexpr int64_t kSinusoid = 256, kPatch = Sd3Config::kPatch;

  Sd3Config c_;
  at::TensorOptions options_;
  nn::SiluMlp time_, pooled_;
  std::map<int, JointBlock> blocks_;
  Linear image_in_, text_in_, out_;
  at::Tensor positions_;  // [1, rows * columns of the table, C]; with the first block
  ModulationTable last_;
  std::shared_ptr<nn::ModulationTables> tables_;
};

ModelFacts facts(const Json& config) {
  const Sd3Config c(config);
  ModelFacts facts{.heads = static_cast<int>(c.heads.count), .blocks = c.layers};
  if (c.dual.empty()) return facts;
  // The second attention's four products beside the twelve that every image token passes.
  for (int i = 0; i < c.layers; ++i) facts.cost.push_back(c.is_dual(i) ? 4.0 / 3 : 1.0);
  return facts;
}

SamplingDefaults defaults(const Json& config) {
  constexpr int kPixels = 8;  // of a latent row of every published autoencoder
  const int size = static_cast<int>(Sd3Config(config).sample_size) * kPixels;
  return {.guidance = 7.0, .height = size, .width = size, .max_sequence_length = 256};
}

Grid grid(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t) {
  const Sd3Config c(config);
  auto made = grid_of_2x2(c.channels, spatial, height, width, c.most_patches);
  made.note = size_note(c.sample_size * spatial, height, width);
  return made;
}

at::Tensor unpack(const at::Tensor& tokens, const Grid& g) {
  return nn::unpack_2x2(tokens, g.rows, g.cols);
}

// Of the image: rows of the position table, whose middle the picture takes (PatchEmbed.cropped_pos_embed).
at::Tensor coordinates(const Json& config, const Grid& g, int stream, int64_t tokens) {
  const at::TensorOptions integers(at::kLong);
  if (stream == kText) return at::zeros({tokens, 1}, integers);
  const int64_t most = Sd3Config(config).most_patches;
  const auto row = at::arange(g.rows, integers) + (most - g.rows) / 2;
  const auto col = at::arange(g.cols, integers) + (most - g.cols) / 2;
  return (row.unsqueeze(1) * most + col).view({tokens, 1});
}

// The states of both CLIP encoders side by side, as wide as T5's, which follow. Without T5 there are zeros.
Conditioning condition(Encoders& encoders, const PromptBatch& p) {
  constexpr int64_t kClipTokens = 77;
  const int layer = -(p.clip_skip + 2);
  const auto clip =
      encoders.encode({.encoder = "text_encoder", .length = kClipTokens, .layer = layer}, p.texts[0]);
  const auto clip_g =
      encoders.encode({.encoder = "text_encoder_2", .length = kClipTokens, .layer = layer}, p.texts[1]);
  const auto both = at::cat({clip.states, clip_g.states}, -1);
  const auto t5 = encoders.has("text_encoder_3")
                      ? encoders.encode({"text_encoder_3", p.max_sequence_length}, p.texts[2]).states
                      : at::zeros({both.size(0), p.max_sequence_length, Sd3Config(p.denoiser).text_width},
                                  both.options());
  const auto padded = at::constant_pad_nd(both, {0, t5.size(-1) - both.size(-1)});
  const auto states = at::cat({padded, t5}, 1);  // [B, T, C]
  return {.streams = {states.transpose(0, 1).contiguous()},
          .whole = {{"pooled", at::cat({clip.projected, clip_g.projected}, -1)}}};
}

Conditioning condition_of_call(const Json& config, NetworkInputs& inputs) {
  const Sd3Config c(config);
  return joint_text(inputs, c.text_width, c.pooled_width);
}

std::unique_ptr<nn::Model> build(const Json& config, const Builder& b, std::span<const Range> blocks) {
  return std::make_unique<Sd3>(Sd3Config(config), b, blocks);
}

}  // namespace

extern const Family kSd3{
    .name = "sd3",
    .pipeline = "StableDiffusion3Pipeline",
    .editing = {"StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"},
    .denoiser = "SD3Transformer2DModel",
    .experts = {"transformer"},
    .encoders = {{"text_encoder", "tokenizer"},
                 {"text_encoder_2", "tokenizer_2"},
                 {"text_encoder_3", "tokenizer_3", true}},
    .streams = {{"image", StreamSpec::kLatent}, {"text", StreamSpec::kJoint, true}},
    .guidance_scale = GuidanceScale::kClassifierFree,
    .most_text_tokens = 512,
    .call_text_tokens = 256,
    .prompts = 3,
    .has_clip_skip = true,
    .sigmas = Sigmas::kFromScheduler,
    .image_to_image = {.cut = ImageToImage::kFirst},
    .facts = facts,
    .work = work_sd3,
    .defaults = defaults,
    .grid = grid,
    .pack = nn::pack_2x2,
    .unpack = unpack,
    .coordinates = coordinates,
    .condition = condition,
    .call = {.condition = condition_of_call},
    .names = names_sd3,
    .ignorable = ignorable_sd3(),
    .presets = presets_sd3(),
    .config_of_file = config_of_sd3_file,
    .build = build,
};

}  // namespace atelier::models
