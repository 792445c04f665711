// FLUX.1 (schnell and dev): Black Forest Labs, 2024. Two streams of tokens meet in joint attention, then run
// as one. Upstream: diffusers models/transformers/transformer_flux.py, pipelines/flux/pipeline_flux.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/blocks.h"
#include "models/config.h"
#include "models/family.h"
#include "models/flux/config.h"
#include "models/flux/names.h"
#include "models/flux/presets.h"
#include "models/network_inputs.h"
#include "models/patches.h"
#include "nn/embedding.h"
#include "nn/patchify.h"

namespace atelier::models {
namespace {

using namespace nn;

enum Stream { kText, kImage, kJoint };  // kJoint: both, one after the other

// The text or the image side of a double block.
struct Half {
  ModulationTable mod;
  Linear qkv, out, up, down;
  HeadNorm norm_q, norm_k;
  int64_t head_dim;

  Half(const FluxConfig& c, const Builder& b)
      : mod(b.table("mod", c.width, 6 * c.width)),
        qkv(b.expand("qkv", c.width, {c.heads, c.heads, c.heads})),
        out(b.contract("out", {c.heads}, c.width)),
        up(b.expand("up", c.width, {Dim{4 * c.width}})),
        down(b.contract("down", {Dim{4 * c.width}}, c.width)),
        norm_q(b.head_norm("norm_q", c.heads)),
        norm_k(b.head_norm("norm_k", c.heads)),
        head_dim(c.heads.unit) {}
  Projected project(const Activation& x, const Rope& r) const {
    return split_qkv(qkv(x), head_dim, norm_q, norm_k, r);
  }
  at::Tensor mlp(const Activation& x) const { return down(gelu_tanh(up, x)); }
};

struct DoubleBlock {
  Half text, image;
  Attention attend;
  int64_t width;

  DoubleBlock(const FluxConfig& c, const Builder& b)
      : text(c, b / "text"),
        image(c, b / "image"),
        attend(b.attention("attn", {kText, kImage}, c.heads)),
        width(c.width) {}
  void operator()(const CallContext& f, State& s) const {
    const auto xt = s.stream(kText), xi = s.stream(kImage);
    const auto mt = modulations(text.mod, s, width), mi = modulations(image.mod, s, width);
    const auto o = attend(f, {text.project(norm(xt, mt.attention), s.ropes[kText]),
                              image.project(norm(xi, mi.attention), s.ropes[kImage])});
    finish(text, xt, o.narrow(0, 0, xt.size(0)), mt);
    finish(image, xi, o.narrow(0, xt.size(0), xi.size(0)), mi);
  }

 private:
  static void finish(const Half& half, const at::Tensor& x, const at::Tensor& attended,
                     const Modulations& m) {
    gated_(x, m.attention.gate, half.out(attended));
    gated_(x, m.mlp.gate, half.mlp(norm(x, m.mlp)));
  }
};

struct SingleBlock {
  ModulationTable mod;
  Linear qkv, up, out;
  HeadNorm norm_q, norm_k;
  Attention attend;
  int64_t width, head_dim;

  SingleBlock(const FluxConfig& c, const Builder& b)
      : mod(b.table("mod", c.width, 3 * c.width)),
        qkv(b.expand("qkv", c.width, {c.heads, c.heads, c.heads})),
        up(b.expand("up", c.width, {Dim{4 * c.width}})),
        out(b.contract("out", {c.heads, Dim{4 * c.width}}, c.width)),
        norm_q(b.head_norm("norm_q", c.heads)),
        norm_k(b.head_norm("norm_k", c.heads)),
        attend(b.attention("attn", {kText, kImage}, c.heads)),
        width(c.width),
        head_dim(c.heads.unit) {}
  void operator()(const CallContext& f, State& s) const {
    const auto m = modulations(mod, s, width).attention;
    const auto x = norm(s.x, m);
    auto pending = attend.start(f, {split_qkv(qkv(x), head_dim, norm_q, norm_k, s.ropes[kJoint])});
    const auto mlp = gelu_tanh(up, x);  // needs no attention
    gated_(s.x, m.gate, out({attend.finish(std::move(pending)), mlp}));
  }
};

class Flux : public nn::Model {
 public:
  Flux(const FluxConfig& c, const Builder& b, std::span<const Range> mine) : c_(c), options_(b.options()) {
    const auto embed = b / "time_text_embed";
    const auto mlp = [&](std::string_view name, int64_t in) {
      return silu_mlp(embed / name, in, c.width, c.width);
    };
    time_ = mlp("timestep_embedder", kSinusoid);
    pooled_ = mlp("text_embedder", c.pooled_width);
    if (c.guidance) guidance_ = mlp("guidance_embedder", kSinusoid);
    for (int i = 0; i < c.blocks(); ++i) {
      if (owns(mine, i)) build_block(i, b.block(i));
    }
    if (owns(mine, 0)) {
      image_in_ = b.linear("x_embedder", c.in_channels, c.width);
      text_in_ = b.linear("context_embedder", c.text_width, c.width);
    }
    if (owns(mine, c.blocks() - 1)) {
      last_ = b.table("norm_out.linear", c.width, 2 * c.width);
      out_ = b.linear("proj_out", c.width, c.in_channels);
    }
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return c_.blocks(); }
  nn::ModulationTable first_modulation() const override {
    return c_.doubles > 0 ? doubles_.at(0).image.mod : singles_.at(0).mod;
  }

  RequestContext begin(const CallContext& f, const Conditioning& given,
                       std::span<const float> timesteps) override {
    // Sinusoids of numbers up to 3500 magnify the last bit of a frequency: the CPU's serve every device.
    const auto numbers = [&](const at::Tensor& t) { return nn::sinusoid(t, kSinusoid).to(options_); };
    // Its pipeline divides times by 1000, its transformer multiplies them and the guidance; each is rounded.
    const auto t = at::tensor(at::ArrayRef<float>(timesteps.data(), timesteps.size())) / 1000 * 1000;
    auto condition = time_(numbers(t)).unsqueeze(1);  // [steps, 1, C]
    if (c_.guidance) {
      const auto g = at::full({1}, given.guidance, t.options()) * 1000;
      condition = condition + guidance_(numbers(g)).unsqueeze(0);
    }
    condition = condition + pooled_(given.whole.at("pooled").to(options_)).unsqueeze(0);  // [steps, B, C]
    probe(f, "time_text_embed", condition[0], nn::Recorder::kWhole);
    RequestContext context{.tables = tables_->evaluate(at::silu(condition)), .width = c_.width};
    if (text_in_) {
      context.streams = {text_in_(given.streams[0].to(options_))};
      probe(f, "context_embedder", context.streams[0], kText);
    }
    return context;
  }

  void enter(const CallContext& f, State& s) override {
    const auto rope = [&](const at::Tensor& at) { return nn::rope_of(at, c_.axes, kTheta, options_); };
    s.ropes = {rope(s.positions[kText]), rope(s.positions[kImage]), {}};
    s.ropes[kJoint] = {at::cat({s.ropes[kText].cos, s.ropes[kImage].cos}),
                       at::cat({s.ropes[kText].sin, s.ropes[kImage].sin})};
    if (!f.probes) return;
    probe(f, "pos_embed.0", s.ropes[kJoint].cos.repeat_interleave(2, 1), nn::Recorder::kAll);
    probe(f, "pos_embed.1", s.ropes[kJoint].sin.repeat_interleave(2, 1), nn::Recorder::kAll);
  }

  void embed(const CallContext& f, State& s, const at::Tensor& latents) override {
    const auto image = image_in_(latents.to(options_.dtype()));
    probe(f, "x_embedder", image, kImage);
    s.x = s.n[kText] > 0 ? at::cat({s.context->streams[0], image}) : image;
  }

  void block(int i, const CallContext& f, State& s) override {
    const bool is_double = i < c_.doubles;
    if (is_double) {
      doubles_.at(i)(f, s);
    } else {
      singles_.at(i)(f, s);
    }
    if (!f.probes) return;
    const auto name =
        is_double ? str("transformer_blocks.", i) : str("single_transformer_blocks.", i - c_.doubles);
    probe(f, name + ".0", s.stream(kText), kText);
    probe(f, name + ".1", s.stream(kImage), kImage);
  }

  at::Tensor head(const CallContext& f, State& s) override {
    const auto m = chunks(last_, s, 2);  // scale first: AdaLayerNormContinuous
    const auto x = norm(s.stream(kImage), {m[1], m[0], {}});
    probe(f, "norm_out", x, kImage);
    auto out = out_(x);
    probe(f, "proj_out", out, kImage);
    return out;
  }

 private:
  static constexpr int64_t kSinusoid = 256;
  static constexpr double kTheta = 10000;

  void build_block(int i, const Builder& b) {
    if (i < c_.doubles) {
      doubles_.emplace(i, DoubleBlock(c_, b / "double" / i));
    } else {
      singles_.emplace(i, SingleBlock(c_, b / "single" / (i - c_.doubles)));
    }
    b.finish_block(i);
  }

  FluxConfig c_;
  at::TensorOptions options_;
  nn::SiluMlp time_, pooled_, guidance_;
  std::map<int, DoubleBlock> doubles_;
  std::map<int, SingleBlock> singles_;
  Linear image_in_, text_in_, out_;
  ModulationTable last_;
  std::shared_ptr<nn::ModulationTables> tables_;
};

ModelFacts facts(const Json& config) {
  const FluxConfig c(config);
  return {.heads = static_cast<int>(c.heads.count), .blocks = c.blocks()};
}

SamplingDefaults defaults(const Json& config) {
  if (FluxConfig(config).guidance) return {};
  return {.steps = 4, .guidance = 0.0, .max_sequence_length = 256};
}

Grid grid(const Json& config, int64_t spatial, int64_t height, int64_t width, int64_t) {
  return grid_of_2x2(FluxConfig(config).in_channels / 4, spatial, height, width);
}

at::Tensor unpack(const at::Tensor& tokens, const Grid& g) {
  return nn::unpack_2x2(tokens, g.rows, g.cols);
}
at::Tensor coordinates(const Json&, const Grid& g, int stream, int64_t tokens) {
  if (stream == kText) return at::zeros({tokens, 3}, at::TensorOptions(at::kLong));
  return nn::grid_coordinates(g.rows, g.cols);
}

Conditioning condition(Encoders& encoders, const PromptBatch& p) {
  const auto clip = encoders.encode({"text_encoder", 77}, p.texts[0]);
  const auto t5 = encoders.encode({"text_encoder_2", p.max_sequence_length}, p.texts[1]);
  return {.streams = {t5.states.transpose(0, 1).contiguous()},
          .whole = {{"pooled", clip.pooled}},
          .guidance = p.guidance_scale};
}

// Guidance comes with every call, also of models that were not distilled with it.
Conditioning condition_of_call(const Json& config, NetworkInputs& inputs) {
  const FluxConfig c(config);
  auto made = joint_text(inputs, c.text_width, c.pooled_width);
  made.guidance = inputs.take_number("guidance", 3.5);
  return made;
}

// Of diffusers folders and of files in the original naming, whose fused tensors are cut by width.
std::vector<weights::NameRule> names(const Json& config) {
  auto all = names_flux_diffusers();
  for (auto& rule : names_flux_original(FluxConfig(config).width)) all.push_back(std::move(rule));
  for (auto& rule : names_flux_xlabs()) all.push_back(std::move(rule));
  return all;
}

std::vector<TextWidth> text_widths(const Json& config) {
  const FluxConfig c(config);
  return {{"joint_attention_dim", c.text_width, {"text_encoder_2"}, TextWidth::Of::kStates},
          {"pooled_projection_dim", c.pooled_width, {"text_encoder"}, TextWidth::Of::kPooled}};
}

// Fitted to FLUX.1-dev by its authors: ali-vilab/TeaCache, TeaCache4FLUX.
std::vector<double> tea_coefficients(const Json&) {
  return {4.98651651e+02, -2.83781631e+02, 5.58554382e+01, -3.82021401e+00, 2.64230861e-01};
}

std::unique_ptr<nn::Model> build(const Json& config, const Builder& b, std::span<const Range> blocks) {
  return std::make_unique<Flux>(FluxConfig(config), b, blocks);
}

}  // namespace

extern const Family kFlux{
    .name = "flux",
    .pipeline = "FluxPipeline",
    .editing = {"FluxImg2ImgPipeline", "FluxInpaintPipeline"},
    .denoiser = "FluxTransformer2DModel",
    .experts = {"transformer"},
    .encoders = {{"text_encoder", "tokenizer"}, {"text_encoder_2", "tokenizer_2"}},
    .streams = {{"text", StreamSpec::kJoint, true}, {"image", StreamSpec::kLatent}},
    .guidance_scale = GuidanceScale::kEmbedded,
    .most_text_tokens = 512,
    .prompts = 2,
    .sigmas = Sigmas::kLinearToInverse,
    .pipeline_time_scale = 1e-3,
    .image_to_image = {.cut = ImageToImage::kFirst},
    .facts = facts,
    .work = work_flux,
    .defaults = defaults,
    .grid = grid,
    .pack = nn::pack_2x2,
    .unpack = unpack,
    .coordinates = coordinates,
    .condition = condition,
    .call = {.condition = condition_of_call},
    .names = names,
    .presets = presets_flux(),
    .config_of_file = config_of_flux_file,
    .build = build,
    .text_widths = text_widths,
    .tea_coefficients = tea_coefficients,
};

}  // namespace atelier::models
