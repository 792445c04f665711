// PixArt-Sigma: Chen et al. (arXiv 2403.04692), and PixArt-alpha before it (arXiv 2310.00426). One stream of
// image tokens; one modulation linear for all blocks (adaLN-single); cross attention to T5's states.
// Upstream: diffusers models/transformers/pixart_transformer_2d.py,
// pipelines/pixart_alpha/pipeline_pixart_sigma.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/family.h"
#include "models/patches.h"
#include "models/pixart/config.h"
#include "models/pixart/names.h"
#include "models/pixart/presets.h"
#include "nn/embedding.h"
#include "nn/patchify.h"

namespace atelier::models {
namespace {

using namespace nn;

constexpr int kImage = 0;  // the only stream

struct PixArtBlock {
  ModulationTable mod;
  Linear qkv, out, cross_q, cross_kv, cross_out, up, down;
  Attention attend;
  CrossAttention cross;
  int64_t width, head_dim;

  PixArtBlock(const PixArtConfig& c, const Builder& b, const ModulationTable& shared)
      : mod(b.offset_table("scale_shift_table", shared, {6, c.width})),
        qkv(b.expand("qkv", c.width, {c.heads, c.heads, c.heads}, c.bias)),
        out(b.contract("out", {c.heads}, c.width)),
        cross_q(b.expand("cross.q", c.width, {c.heads}, c.bias)),
        cross_kv(b.expand("cross.kv", c.text_width, {c.heads, c.heads}, c.bias)),
        cross_out(b.contract("cross.out", {c.heads}, c.width)),
        up(b.expand("up", c.width, {Dim{4 * c.width}})),
        down(b.contract("down", {Dim{4 * c.width}}, c.width)),
        attend(b.attention("attn", {kImage}, c.heads)),
        cross(b.cross_attention(c.heads)),
        width(c.width),
        head_dim(c.heads.unit) {}

  void begin(RequestContext& context, std::span<const int64_t> lengths) const {
    const auto kv = cross_kv(context.prompt).unflatten(-1, {2, -1, head_dim});
    cross.begin(context, {.k = kv.select(2, 0), .v = kv.select(2, 1)}, lengths);
  }
  // Neither norm nor gate stands at the cross attention.
  void operator()(const CallContext& f, const State& s) const {
    const auto m = modulations(mod, s, width);
    const auto fused = qkv(norm(s.x, m.attention)).unflatten(-1, {3, -1, head_dim});
    gated_(s.x, m.attention.gate,
           out(attend(f, {{.q = fused.select(2, 0), .k = fused.select(2, 1), .v = fused.select(2, 2)}})));
    s.x.add_(cross_out(cross(s, {.q = cross_q(s.x).unflatten(-1, {-1, head_dim})})));
    gated_(s.x, m.mlp.gate, down(gelu_tanh(up, norm(s.x, m.mlp))));
  }
};

// Sines, then cosines, of positions [n] times 10000^(-i / (channels / 2)): [n, channels], double.
at::Tensor sines_of(const at::Tensor& positions, int64_t channels) {
  const auto i = at::arange(channels / 2, at::TensorOptions(at::kDouble));
  const auto angles =
      at::outer(positions.to(at::kDouble), 1 / at::pow(10000.0, i / (static_cast<double>(channels) / 2)));
  return at::cat({angles.sin(), angles.cos()}, 1);
}

// Of tokens at (row, column, rows, columns), [n, 4]: [n, 1, C], float. Every grid is stretched to the range
// that the model was trained on; columns take the first half of the channels.
at::Tensor position_table(const PixArtConfig& c, const at::Tensor& at) {
  const auto axis = [&](int64_t place, int64_t of) {
    const double stretch = at.size(0) > 0 ? at[0][of].item<double>() / static_cast<double>(c.base) : 1;
    return at.select(1, place).to(at::kFloat) / stretch / c.interpolation;
  };
  return at::cat({sines_of(axis(1, 3), c.width / 2), sines_of(axis(0, 2), c.width / 2)}, 1)
      .to(at::kFloat)
      .unsqueeze(1);
}

class PixArt : public nn::Model {
 public:
  PixArt(const PixArtConfig& c, const Builder& b, std::span<const Range> mine)
      : c_(c), options_(b.options()) {
    const auto embed = b / "adaln_single" / "emb";
    const auto mlp = [&](std::string_view name, int64_t out) {
      return silu_mlp(embed / name, kSinusoid, out, out);
    };
    time_ = mlp("timestep_embedder", c.width);
    if (c.has_sizes) resolution_ = mlp("resolution_embedder", c.width / 3);
    if (c.has_sizes) aspect_ = mlp("aspect_ratio_embedder", c.width / 3);
    if (c.caption_width > 0) {
      const auto caption = b / "caption_projection";
      caption_in_ = caption.linear("linear_1", c.caption_width, c.width);
      caption_out_ = caption.linear("linear_2", c.width, c.width);
    }
    shared_ = b.table("adaln_single.linear", c.width, 6 * c.width);
    for (const Range& r : mine) {
      for (auto i = static_cast<int>(r.begin); i < r.end(); ++i) {
        blocks_.emplace(i, PixArtBlock(c, b.block(i) / "blocks" / i, shared_));
        b.finish_block(i);
        if (i == 0) build_first(b);
        if (i == c.blocks - 1) build_last(b);
      }
    }
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return c_.blocks; }

  RequestContext begin(const CallContext& f, const Conditioning& given,
                       std::span<const float> timesteps) override {
    const auto numbers = [&](const at::Tensor& t) { return sinusoid(t, kSinusoid).to(options_); };
    const auto t = at::tensor(at::ArrayRef<float>(timesteps.data(), timesteps.size()));
    auto embedding = time_(numbers(t)).unsqueeze(1);  // [steps, 1, C]
    if (c_.has_sizes) {
      const auto resolution = resolution_(numbers(given.whole.at("resolution").to(at::kCPU))).flatten();
      const auto aspect = aspect_(numbers(given.whole.at("aspect_ratio").to(at::kCPU))).flatten();
      embedding = embedding + at::cat({resolution, aspect});
    }
    const auto text = given.whole.at("embeds").to(options_).transpose(0, 1).contiguous();  // [T, B, C]
    const auto each = [&](const at::Tensor& rows) { return rows.expand({-1, text.size(1), -1}); };
    const auto tables = tables_->evaluate(at::silu(embedding), embedding);
    RequestContext context{.tables = each(tables).contiguous(), .width = c_.width};
    context.prompt = caption_in_ ? caption_out_(gelu_tanh(caption_in_, text)) : text;
    if (!f.probes) return context;
    probe(f, "adaln_single.0", each(tables)[0].narrow(-1, shared_.begin, shared_.size), Recorder::kWhole);
    probe(f, "adaln_single.1", each(embedding)[0], Recorder::kWhole);
    if (caption_in_) probe(f, "caption_projection", context.prompt.transpose(0, 1), Recorder::kWhole);
    return context;
  }

  void begin_block(int i, const Conditioning& given, RequestContext& context) override {
    blocks_.at(i).begin(context, given.lengths);
  }

  void enter(const CallContext&, State& s) override {
    s.position_embeddings = position_table(c_, s.positions[kImage]).to(options_.device());
  }

  void embed(const CallContext& f, State& s, const at::Tensor& latents) override {
    const auto cells = at::linear(latents.to(options_.dtype()), cells_weight_.flatten(1), cells_bias_);
    s.x = (cells + s.position_embeddings).to(options_.dtype());
    probe(f, "pos_embed", s.x, kImage);
  }

  void block(int i, const CallContext& f, State& s) override {
    blocks_.at(i)(f, s);
    if (f.probes) probe(f, str("transformer_blocks.", i), s.x, kImage);
  }

  // The other half of the outputs is a variance that no sampler takes.
  at::Tensor head(const CallContext& f, State& s) override {
    const auto m = chunks(last_, s, 2);  // shift first
    if (f.probes) probe(f, "norm_out", at::layer_norm(s.x, {c_.width}, {}, {}, 1e-6), kImage);
    const auto out = out_(norm(s.x, {m[0], m[1], {}}));
    probe(f, "proj_out", out, kImage);
    // [n, B, place in the 2x2, channel] -> channel first, as packed latents have it
    return out.unflatten(-1, {4, c_.out_channels}).narrow(-1, 0, c_.channels).transpose(-1, -2).flatten(-2);
  }

 private:
  static constexpr int64_t kSinusoid = 256;

  void build_first(const Builder& b) {
    cells_weight_ = b.buffer("pos_embed.proj.weight", {c_.width, c_.channels, 2, 2});
    cells_bias_ = b.buffer("pos_embed.proj.bias", {c_.width});
  }
  void build_last(const Builder& b) {
    last_ = b.embedding_table("scale_shift_table", {2, c_.width});
    out_ = b.linear("proj_out", c_.width, 4 * c_.out_channels);
  }

  PixArtConfig c_;
  at::TensorOptions options_;
  SiluMlp time_, resolution_, aspect_;
  Linear caption_in_, caption_out_, out_;
  at::Tensor cells_weight_, cells_bias_;  // a convolution that never overlaps: [C, channels, 2, 2]
  ModulationTable shared_, last_;
  std::map<int, PixArtBlock> blocks_;
  std::shared_ptr<ModulationTables> tables_;
};

ModelFacts facts(const Json& config) {
  const PixArtConfig c(config);
  return {.heads = static_cast<int>(c.heads.count), .blocks = c.blocks};
}

constexpr int kPixelsPerLatent = 8;  // of the autoencoder that every published model has

SamplingDefaults defaults(const Json& config) {
  const int side = PixArtConfig(config).sample * kPixelsPerLatent;
  return {.steps = 20, .guidance = 4.5, .height = side, .width = side, .max_sequence_length = 300};
}

Grid grid(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t) {
  const PixArtConfig c(config);
  auto made = grid_of_2x2(c.channels, spatial, height, width);
  // The bins that the reference maps sizes to keep about this number of pixels.
  made.note = size_note(c.sample * spatial, height, width);
  return made;
}

at::Tensor unpack(const at::Tensor& tokens, const Grid& g) {
  return unpack_2x2(tokens, g.rows, g.cols);
}

// (row, column, rows, columns): what a position is depends on the size of the grid.
at::Tensor coordinates(const Json&, const Grid& g, int, int64_t tokens) {
  const auto sides = at::tensor({g.rows, g.cols}, at::TensorOptions(at::kLong)).expand({tokens, 2});
  return at::cat({grid_coordinates(g.rows, g.cols).narrow(1, 1, 2), sides}, 1);
}

Conditioning condition(Encoders& encoders, const PromptBatch& p) {
  const auto t5 = encoders.encode({.encoder = "text_encoder",
                                   .length = p.max_sequence_length,
                                   .padding = TextCall::Padding::kMasked,
                                   .cleaning = TextCall::Cleaning::kLowerStripped},
                                  p.texts[0]);
  Conditioning made{.whole = {{"embeds", t5.states}, {"mask", t5.mask}}, .lengths = t5.lengths};
  if (PixArtConfig(p.denoiser).has_sizes) {
    const auto height = static_cast<double>(p.height), width = static_cast<double>(p.width);
    made.whole["resolution"] = at::tensor({height, width}, at::TensorOptions(at::kFloat));
    made.whole["aspect_ratio"] = at::tensor({height / width}, at::TensorOptions(at::kFloat));
  }
  return made;
}

std::vector<weights::NameRule> names(const Json&) {
  auto all = names_pixart_diffusers();
  for (const char* prefix : {"", "model.diffusion_model."}) {
    for (auto& rule : names_pixart_original(prefix)) all.push_back(std::move(rule));
  }
  return all;
}

std::unique_ptr<nn::Model> build(const Json& config, const Builder& b, std::span<const Range> blocks) {
  return std::make_unique<PixArt>(PixArtConfig(config), b, blocks);
}

Family pixart(std::string_view name, std::string_view pipeline, int64_t most_text_tokens) {
  return {
      .name = name,
      .pipeline = pipeline,
      .denoiser = "PixArtTransformer2DModel",
      .experts = {"transformer"},
      .encoders = {{"text_encoder", "tokenizer"}},
      .streams = {{"image", StreamSpec::kLatent}},
      .guidance_scale = GuidanceScale::kClassifierFree,
      .most_text_tokens = most_text_tokens,
      .sigmas = Sigmas::kFromScheduler,
      .facts = facts,
      .work = work_pixart,
      .defaults = defaults,
      .grid = grid,
      .pack = nn::pack_2x2,
      .unpack = unpack,
      .coordinates = coordinates,
      .condition = condition,
      .names = names,
      .ignorable = {"caption_projection.y_embedding", "*y_embedder.y_embedding", "*pos_embed"},
      .config_of_file = config_of_pixart_file,
      .build = build,
  };
}

Family pixart_sigma() {
  auto family = pixart("pixart", "PixArtSigmaPipeline", 300);
  family.presets = presets_pixart();
  return family;
}

// The same mathematics under an earlier pipeline, which reads less text.
Family pixart_alpha() {
  auto family = pixart("pixart_alpha", "PixArtAlphaPipeline", 120);
  family.defaults = [](const Json& config) {
    auto all = defaults(config);
    all.max_sequence_length = 120;
    return all;
  };
  return family;
}

}  // namespace

extern const Family kPixArtSigma = pixart_sigma();
extern const Family kPixArtAlpha = pixart_alpha();

}  // namespace atelier::models
