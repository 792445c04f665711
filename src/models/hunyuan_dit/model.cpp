// HunyuanDiT v1.0 to v1.2: Li et al. (arXiv 2405.08748). One stream of image tokens that attends to a
// prompt in two languages, with long skips from the first half of the blocks to the second. Upstream:
// diffusers models/transformers/hunyuan_transformer_2d.py, pipelines/hunyuandit/pipeline_hunyuandit.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/blocks.h"
#include "models/family.h"
#include "models/hunyuan_dit/config.h"
#include "models/hunyuan_dit/names.h"
#include "models/hunyuan_dit/presets.h"
#include "nn/embedding.h"
#include "nn/patchify.h"
#include "nn/sdpa.h"

namespace atelier::models {
namespace {

using namespace nn;

constexpr int kImage = 0;  // the one stream

// Norm, attend to the image, norm, attend to the prompt, norm, MLP. Only the first norm knows the time:
// it is shifted.
struct HunyuanBlock {
  ModulationTable shift;
  LayerNorm norm1, norm2, norm3, skip_norm;
  Linear qkv, out, cross_q, cross_kv, cross_out, up, down, skip_in;
  HeadNorm norm_q, norm_k, cross_norm_q, cross_norm_k;
  Attention attend;
  CrossAttention cross;
  int64_t head_dim;
  int index, skip_from = -1;  // the block whose output is skipped to this one; -1: none

  HunyuanBlock(const HunyuanConfig& c, const Builder& b, int i)
      : shift(b.table("norm1.linear", c.width, c.width)),
        norm1(b.layer_norm("norm1.norm", c.width, kEps)),
        norm2(b.layer_norm("norm2", c.width, kEps)),
        norm3(b.layer_norm("norm3", c.width, kEps)),
        qkv(b.expand("attn1.qkv", c.width, {c.heads, c.heads, c.heads})),
        out(b.contract("attn1.to_out.0", {c.heads}, c.width)),
        cross_q(b.expand("attn2.to_q", c.width, {c.heads})),
        cross_kv(b.expand("attn2.kv", c.text_width, {c.heads, c.heads})),
        cross_out(b.contract("attn2.to_out.0", {c.heads}, c.width)),
        up(b.expand("ff.net.0.proj", c.width, {Dim{c.mlp_width}})),
        down(b.contract("ff.net.2", {Dim{c.mlp_width}}, c.width)),
        norm_q(head_norm(c, b, "attn1.norm_q")),
        norm_k(head_norm(c, b, "attn1.norm_k")),
        cross_norm_q(head_norm(c, b, "attn2.norm_q")),
        cross_norm_k(head_norm(c, b, "attn2.norm_k")),
        attend(b.attention("attn1", {kImage}, c.heads)),
        cross(b.cross_attention(c.heads)),
        head_dim(c.heads.unit),
        index(i) {
    if (!c.takes_skip(i)) return;
    skip_from = c.blocks - 1 - i;
    skip_norm = b.layer_norm("skip_norm", 2 * c.width, kEps);
    skip_in = b.linear("skip_linear", 2 * c.width, c.width);
  }

  // Keys and values of the prompt, which have no positions.
  void begin(RequestContext& context) const {
    const auto kv = cross_kv(context.prompt).unflatten(-1, {2, -1, head_dim});
    cross.begin(context, {.k = kv.select(2, 0), .v = kv.select(2, 1), .norm_k = &cross_norm_k}, {});
  }

  void operator()(const CallContext& f, State& s) const {
    if (skip_from >= 0) s.x = skip_in(skip_norm(at::cat({s.x, s.skip(skip_from)}, -1)));
    const auto name = [&](const char* module) { return str("blocks.", index, ".", module); };
    const auto add = [&](const char* module, const at::Tensor& y) {
      if (f.probes) probe(f, name(module), y, kImage);
      s.x.add_(y);
    };
    const auto& rope = s.ropes[kImage];
    const auto x = norm1(s.x).add_(chunks(shift, s, 1)[0]);
    add("attn1", out(attend(f, {split_qkv(qkv(x), head_dim, norm_q, norm_k, rope)})));
    const auto q = cross_q(norm2(s.x)).unflatten(-1, {-1, head_dim});
    add("attn2", cross_out(cross(s, {.q = q, .norm_q = &cross_norm_q, .rope = &rope})));
    add("ff", down(gelu_tanh(up, norm3(s.x))));
  }

 private:
  static constexpr double kEps = 1e-6;
  static HeadNorm head_norm(const HunyuanConfig& c, const Builder& b, std::string_view name) {
    return b.head_norm(name, c.heads, HeadNorm::NormKind::kLayer, kEps);
  }
};

// Attention whose one query is the mean of all tokens, each with its learned position: [B, T, C] -> [B,
// pooled]; of more tokens than it has positions it reads the first. Upstream: diffusers embeddings.py
// HunyuanDiTAttentionPool.
struct AttentionPool {
  at::Tensor positions;  // [T + 1, C], the mean first
  Linear q, k, v, out;

  AttentionPool() = default;
  AttentionPool(const HunyuanConfig& c, const Builder& b)
      : positions(b.buffer("positional_embedding", {c.t5_tokens + 1, c.t5_width})),
        q(b.linear("q_proj", c.t5_width, c.t5_width)),
        k(b.linear("k_proj", c.t5_width, c.t5_width)),
        v(b.linear("v_proj", c.t5_width, c.t5_width)),
        out(b.linear("c_proj", c.t5_width, c.pooled_width)) {}
  at::Tensor operator()(const at::Tensor& states) const {
    const auto placed = states.narrow(1, 0, positions.size(0) - 1);
    const auto x = at::cat({placed.mean(1, true), placed}, 1) + positions;
    const auto heads = [](const at::Tensor& t) {
      return t.unflatten(-1, {HunyuanConfig::kPoolHeads, -1}).transpose(1, 2);
    };
    const auto asks = heads(q(x.narrow(1, 0, 1)));
    const auto pooled = attend(asks, heads(k(x)), heads(v(x)), {}, 1 / std::sqrt(asks.size(-1)));
    return out(pooled.transpose(1, 2).flatten(2).squeeze(1));
  }
};

// Where the rows and columns of a grid lie that is spread over the middle of a square of 32 units, its longer
// side filling it. Upstream: get_resize_crop_region_for_grid, and embeddings.py get_2d_rotary_pos_embed,
// whose last row lies at end * (n - 1) / n wherever the first one does; in the model's own repository, and in
// ComfyUI, all rows are equally far from each other and from the end.
struct GridPositions {
  at::Tensor rows, cols;  // float

  GridPositions(int64_t height, int64_t width, bool as_published) : as_published_(as_published) {
    const auto h = static_cast<double>(height), w = static_cast<double>(width);
    const bool is_tall = height > width;
    rows = spread(is_tall ? kUnits : std::nearbyint(kUnits / w * h), height);
    cols = spread(is_tall ? std::nearbyint(kUnits / h * w) : kUnits, width);
  }

 private:
  static constexpr double kUnits = 512.0 / kSpatial / kPatch;
  at::Tensor spread(double units, int64_t n) const {
    const double first = std::nearbyint((kUnits - units) / 2), end = first + units;
    const double part = static_cast<double>(n - 1) / static_cast<double>(n);
    const double last = as_published_ ? first + units * part : end * part;
    return at::linspace(first, last, n, at::TensorOptions(at::kFloat));
  }

  bool as_published_;
};

class HunyuanDit : public nn::Model {
 public:
  HunyuanDit(const HunyuanConfig& c, const Builder& b, std::span<const Range> mine)
      : c_(c), options_(b.options()) {
    const auto embed = b / "time_extra_emb";
    time_ = silu_mlp(embed / "timestep_embedder", kSinusoid, c.width, c.width);
    pool_ = AttentionPool(c, embed / "pooler");
    if (c.has_sizes) style_ = embed.buffer("style_embedder.weight", {1, c.width});
    const int64_t extra = c.pooled_width + (c.has_sizes ? kSizes * kSinusoid + c.width : 0);
    extra_ = silu_mlp(embed / "extra_embedder", extra, 4 * c.width, c.width);
    text_ = silu_mlp(b / "text_embedder", c.t5_width, 4 * c.t5_width, c.text_width);
    padding_ = b.buffer("text_embedding_padding", {c.text_tokens + c.t5_tokens, c.text_width});
    for (int i = 0; i < c.blocks; ++i) {
      if (!owns(mine, i)) continue;
      blocks_.emplace(i, HunyuanBlock(c, b.block(i) / "blocks" / i, i));
      b.block(i).finish_block(i);
    }
    if (owns(mine, 0)) {  // a convolution whose windows are the tokens
      const auto windows = b / "pos_embed" / "proj";
      const auto weight = windows.buffer("weight", {c.width, c.channels, kPatch, kPatch});
      image_in_ = Linear(weight.flatten(1), windows.buffer("bias", {c.width}), nullptr);
    }
    if (owns(mine, c.blocks - 1)) {
      last_ = b.table("norm_out.linear", c.width, 2 * c.width);
      out_ = b.linear("proj_out", c.width, kPatch * kPatch * 2 * c.channels);
    }
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return c_.blocks; }

  RequestContext begin(const CallContext& f, const Conditioning& given,
                       std::span<const float> timesteps) override {
    const auto t5 = given.whole.at("embeds_2").to(options_);
    const auto t = at::tensor(at::ArrayRef<float>(timesteps.data(), timesteps.size()));
    const auto time = time_(nn::sinusoid(t, kSinusoid).to(options_)).unsqueeze(1);  // [steps, 1, C]
    const auto condition = time + extra_(extras(f, given, t5)).unsqueeze(0);        // [steps, B, C]
    probe(f, "time_extra_emb", condition[0], nn::Recorder::kWhole);
    RequestContext context{.tables = tables_->evaluate(at::silu(condition)), .width = c_.width};
    const auto projected = text_(t5);
    probe(f, "text_embedder", projected.flatten(0, 1), nn::Recorder::kWhole);
    const auto text =
        padded(given.whole.at("embeds").to(options_), given.whole.at("mask"), {0, c_.text_tokens});
    const auto text_2 = padded(projected, given.whole.at("mask_2"), {c_.text_tokens, c_.t5_tokens});
    context.prompt = at::cat({text, text_2}, 1).transpose(0, 1).contiguous();
    return context;
  }

  void begin_block(int i, const Conditioning&, RequestContext& context) override {
    blocks_.at(i).begin(context);
  }

  void enter(const CallContext&, State& s) override {
    const auto& at = s.positions[kImage];
    auto xy = at.narrow(1, 0, 2).to(at::kFloat);
    if (at.size(0) > 0) {
      const GridPositions grid(at[0][2].item<int64_t>(), at[0][3].item<int64_t>(), at[0][4].item<bool>());
      xy = at::stack({grid.cols.index_select(0, at.select(1, 1)), grid.rows.index_select(0, at.select(1, 0))},
                     1);
    }
    const int64_t axes[] = {c_.heads.unit / 2, c_.heads.unit / 2};
    s.ropes = {nn::rope_of(xy, axes, kTheta, options_)};
  }

  void embed(const CallContext& f, State& s, const at::Tensor& latents) override {
    s.x = image_in_(latents.to(options_.dtype()));
    probe(f, "pos_embed", s.x, kImage);
  }

  void block(int i, const CallContext& f, State& s) override {
    blocks_.at(i)(f, s);
    if (c_.keeps_skip(i)) s.keep_skip(i, s.x);
    if (f.probes) probe(f, str("blocks.", i), s.x, kImage);
  }

  at::Tensor head(const CallContext& f, State& s) override {
    const auto m = chunks(last_, s, 2);  // scale first: AdaLayerNormContinuous
    const auto x = norm(s.x, {m[1], m[0], {}});
    probe(f, "norm_out", x, kImage);
    const auto out = out_(x);
    probe(f, "proj_out", out, kImage);
    // Tokens leave as (row, column, channel) and entered channel by channel; the variances are not used.
    const auto mean = out.unflatten(-1, {kPatch, kPatch, 2 * c_.channels}).narrow(-1, 0, c_.channels);
    return mean.permute({0, 1, 4, 2, 3}).flatten(2).contiguous();
  }

 private:
  static constexpr int64_t kSinusoid = 256, kSizes = 6;
  static constexpr double kTheta = 10000;

  // States of a text, [B, T, C], with rows of padding_ in the place of those that its mask leaves out. Of a
  // text longer than these rows what stands in front of them counts whole.
  at::Tensor padded(const at::Tensor& states, const at::Tensor& mask, const Range& rows) const {
    const int64_t front = states.size(1) - rows.size;
    const auto counts = mask.narrow(1, front, rows.size).to(options_.device(), at::kBool).unsqueeze(2);
    const auto end =
        at::where(counts, states.narrow(1, front, rows.size), padding_.narrow(0, rows.begin, rows.size));
    return front > 0 ? at::cat({states.narrow(1, 0, front), end}, 1) : end;
  }

  // What conditions all steps alike, [B, extra]. t5 [B, T, C]: all of its states, those of the padding too.
  at::Tensor extras(const CallContext& f, const Conditioning& given, const at::Tensor& t5) const {
    auto pooled = pool_(t5);
    probe(f, "time_extra_emb.pooler", pooled, nn::Recorder::kWhole);
    if (!c_.has_sizes) return pooled;
    const auto sizes = nn::sinusoid(given.whole.at("sizes").to(at::kCPU), kSinusoid).flatten(1).to(options_);
    return at::cat({pooled, sizes, style_.expand({t5.size(0), -1})}, 1);
  }

  HunyuanConfig c_;
  at::TensorOptions options_;
  SiluMlp time_, extra_, text_;
  AttentionPool pool_;
  at::Tensor style_, padding_;  // [1, C]; [tokens of both texts, C of the prompt]
  std::map<int, HunyuanBlock> blocks_;
  Linear image_in_, out_;
  ModulationTable last_;
  std::shared_ptr<nn::ModulationTables> tables_;
};

ModelFacts facts(const Json& config) {
  const HunyuanConfig c(config);
  return {.heads = static_cast<int>(c.heads.count), .blocks = c.blocks, .has_skips = c.blocks > 2};
}

SamplingDefaults defaults(const Json& config) {
  const HunyuanConfig c(config);
  const auto side = static_cast<int>(kSpatial * c.sample_size);
  return {.steps = 50, .guidance = 5, .height = side, .width = side, .max_sequence_length = c.t5_tokens};
}

at::Tensor unpack(const at::Tensor& tokens, const Grid& g) {
  return nn::unpack_2x2(tokens, g.rows, g.cols);
}

// Row, column, the size of the grid, over which positions are spread, and Grid::as_published.
at::Tensor coordinates(const Json&, const Grid& g, int, int64_t) {
  const auto at = nn::grid_coordinates(g.rows, g.cols).narrow(1, 1, 2);
  const auto all = at::tensor({g.rows, g.cols, int64_t{g.as_published}}, at.options());
  return at::cat({at, all.expand({g.tokens(), 3})}, 1);
}

std::unique_ptr<nn::Model> build(const Json& config, const Builder& b, std::span<const Range> blocks) {
  return std::make_unique<HunyuanDit>(HunyuanConfig(config), b, blocks);
}

}  // namespace

extern const Family kHunyuanDit{
    .name = "hunyuan_dit",
    .pipeline = "HunyuanDiTPipeline",
    .denoiser = "HunyuanDiT2DModel",
    .experts = {"transformer"},
    .encoders = {{"text_encoder", "tokenizer"}, {"text_encoder_2", "tokenizer_2"}},
    .streams = {{"image", StreamSpec::kLatent}},
    .guidance_scale = GuidanceScale::kClassifierFree,
    .most_text_tokens = 256,
    .prompts = 2,
    .has_text_length = false,
    .size_inputs = SizeInputs::kOfPicture,
    .reads_sizes = [](const Json& denoiser) { return HunyuanConfig(denoiser).has_sizes; },
    .sigmas = Sigmas::kFromScheduler,
    .facts = facts,
    .work = work_hunyuan_dit,
    .defaults = defaults,
    .grid = grid_hunyuan_dit,
    .pack = nn::pack_2x2,
    .unpack = unpack,
    .coordinates = coordinates,
    .condition = condition_hunyuan_dit,
    .call = {.condition = condition_of_hunyuan_call},
    .names = names_hunyuan_dit,
    .presets = presets_hunyuan_dit(),
    .config_of_file = config_of_hunyuan_dit_file,
    .build = build,
};

}  // namespace atelier::models
