// Wan 2.1 and 2.2 (arXiv 2503.20314): video tokens under a modulation that all blocks share but for their own
// numbers, cross attention to umT5's states and to an image encoder's. VACE (arXiv 2503.07598): a second
// stream of tokens, made of control latents, whose blocks leave hints for some of the model's. Upstream:
// diffusers transformer_wan.py, transformer_wan_vace.py.
#include "models/wan/transformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "models/wan/layers.h"
#include "nn/embedding.h"

namespace atelier::models {
namespace {

using namespace nn;

// 2x2 latents of one frame to a token: a convolution that never overlaps.
struct PatchEmbedding {
  at::Tensor weight, bias;  // [C, channels, 1, 2, 2], [C]

  PatchEmbedding() = default;
  PatchEmbedding(const Builder& b, int64_t channels, int64_t width)
      : weight(b.buffer("weight", {width, channels, 1, 2, 2})), bias(b.buffer("bias", {width})) {}
  // [n, B, 4 channels] -> [n, B, C]
  at::Tensor operator()(const at::Tensor& latents) const {
    return at::linear(latents.to(weight.scalar_type()), weight.flatten(1), bias);
  }
};

// States of the image encoder to tokens that blocks attend to.
struct ImageEmbedder {
  LayerNorm norm1, norm2;
  Linear first, second;
  at::Tensor positions;  // [1, tokens of all pictures, image width]; undefined: none

  ImageEmbedder(const WanConfig& c, const Builder& b)
      : norm1(b.layer_norm("norm1", c.image_width, 1e-5)),
        norm2(b.layer_norm("norm2", c.width, 1e-5)),
        first(b.linear("ff.net.0.proj", c.image_width, c.image_width)),
        second(b.linear("ff.net.2", c.image_width, c.width)) {
    if (c.image_positions > 0) positions = b.buffer("pos_embed", {1, c.image_positions, c.image_width});
  }
  // [B, tokens of the first pictures or of all, image width] -> [tokens, B, C]
  at::Tensor operator()(const at::Tensor& states) const {
    const auto placed = positions.defined() ? states + positions.narrow(1, 0, states.size(1)) : states;
    return norm2(second(at::gelu(first(norm1(placed))))).transpose(0, 1).contiguous();
  }
};

// A VACE block: its own tokens, and the hint that they leave for a block of the model.
struct ControlBlock {
  WanBlock block;
  Linear in, out;  // in: only of the first, which begins with the video's tokens

  ControlBlock(const WanConfig& c, const Builder& b, const ModulationTable& shared, bool is_first)
      : block(c, b, shared, kWanControl), out(b.linear("control_out", c.width, c.width)) {
    if (is_first) in = b.linear("control_in", c.width, c.width);
  }
};

class WanTransformer : public Model {
 public:
  WanTransformer(const WanConfig& c, const Builder& b, std::span<const Range> mine)
      : c_(c), options_(b.options()) {
    const auto embedder = b / "condition_embedder";
    time_ = silu_mlp(embedder / "time_embedder", c.sinusoid, c.width, c.width);
    text_in_ = (embedder / "text_embedder").linear("linear_1", c.text_width, c.width);
    text_out_ = (embedder / "text_embedder").linear("linear_2", c.width, c.width);
    if (c.image_width > 0) pictures_.emplace(c, embedder / "image_embedder");
    shared_ = b.table("condition_embedder.time_proj", c.width, 6 * c.width);
    for (const Range& r : mine) {
      for (auto i = static_cast<int>(r.begin); i < r.end(); ++i) build_block(i, b);
    }
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return c_.blocks; }
  RequestContext begin(const CallContext&, const Conditioning&, std::span<const float> timesteps) override;
  void begin_block(int i, const Conditioning&, RequestContext&) override;
  void enter(const CallContext&, State&) override;
  void embed(const CallContext&, State&, const at::Tensor& latents) override;
  void block(int i, const CallContext&, State&) override;
  at::Tensor head(const CallContext&, State&) override;

 private:
  void build_block(int i, const Builder& b);
  void probe_begin(const CallContext&, const at::Tensor& embedding, const at::Tensor& tables,
                   const at::Tensor& text) const;
  bool is_steered() const { return !c_.control_layers.empty(); }
  // The place of a block among those that VACE steers.
  std::optional<size_t> control_of(int block) const {
    const auto at = std::find(c_.control_layers.begin(), c_.control_layers.end(), block);
    if (at == c_.control_layers.end()) return std::nullopt;
    return static_cast<size_t>(at - c_.control_layers.begin());
  }

  WanConfig c_;
  at::TensorOptions options_;
  SiluMlp time_;
  Linear text_in_, text_out_, out_;
  std::optional<ImageEmbedder> pictures_;
  PatchEmbedding cells_, control_cells_;
  at::Tensor added_cells_;  // as the weight of cells_; undefined: nothing is added
  ModulationTable shared_, last_;
  std::map<int, WanBlock> blocks_;
  std::map<size_t, ControlBlock> control_;
  std::shared_ptr<ModulationTables> tables_;
};

void WanTransformer::build_block(int i, const Builder& b) {
  blocks_.emplace(i, WanBlock(c_, b.block(i) / "blocks" / i, shared_, kWanVideo));
  if (const auto k = control_of(i)) {
    const auto place = b.block(i) / "vace_blocks" / static_cast<int64_t>(*k);
    control_.emplace(*k, ControlBlock(c_, place, shared_, *k == 0));
  }
  b.finish_block(i);
  if (i == 0) {
    cells_ = {b / "patch_embedding", c_.channels, c_.width};
    if (c_.can_be_steered())
      added_cells_ = b.buffer("patch_embedding.added.weight", {c_.width, c_.channels, 1, 2, 2});
    if (is_steered()) control_cells_ = {b / "vace_patch_embedding", c_.control_channels, c_.width};
  }
  if (i == c_.blocks - 1) {
    last_ = b.embedding_table("scale_shift_table", {1, 2, c_.width});
    out_ = b.linear("proj_out", c_.width, 4 * c_.out_channels);
  }
}

RequestContext WanTransformer::begin(const CallContext& f, const Conditioning& given,
                                     std::span<const float> timesteps) {
  // The row behind the last step's is that of latents which are given.
  std::vector<float> times(timesteps.begin(), timesteps.end());
  times.push_back(0);
  const auto embedding = time_(sinusoid(at::tensor(times), c_.sinusoid).to(options_)).unsqueeze(1);
  const auto states = given.whole.at("embeds").to(options_).transpose(0, 1).contiguous();  // [T, B, C]
  const auto text = text_out_(gelu_tanh(text_in_, states));
  const auto rows = tables_->evaluate(at::silu(embedding), embedding).expand({-1, text.size(1), -1});
  const auto steps = static_cast<int64_t>(timesteps.size());
  RequestContext context{.tables = rows.narrow(0, 0, steps).contiguous(), .width = c_.width};
  if (given.whole.contains("given_frame")) context.given = rows[steps].contiguous();
  if (is_steered()) context.control_scales = given.whole.at("control_scales").to(options_);
  context.prompt = text;
  if (pictures_ && given.whole.contains("image")) {
    const auto tokens = (*pictures_)(given.whole.at("image").to(options_));
    probe(f, "condition_embedder.3", tokens.transpose(0, 1), Recorder::kWhole);
    context.prompt = at::cat({tokens, text});
  }
  if (f.probes) {
    // Of tokens that are given, and of the others; of all alike.
    const auto of_tokens = [&](const at::Tensor& t) {
      return context.given.defined() ? at::stack({t[steps], t[0]}, 1) : t[0];
    };
    probe_begin(f, of_tokens(embedding.expand({-1, text.size(1), -1})), of_tokens(rows), text);
  }
  return context;
}

void WanTransformer::probe_begin(const CallContext& f, const at::Tensor& embedding, const at::Tensor& tables,
                                 const at::Tensor& text) const {
  probe(f, "condition_embedder.0", embedding, Recorder::kWhole);
  probe(f, "condition_embedder.1", tables.narrow(-1, shared_.begin, shared_.size), Recorder::kWhole);
  probe(f, "condition_embedder.2", text.transpose(0, 1), Recorder::kWhole);
}

void WanTransformer::begin_block(int i, const Conditioning& given, RequestContext& context) {
  const auto image = given.whole.find("image");
  const int64_t pictures = pictures_ && image != given.whole.end() ? image->second.size(1) : 0;
  blocks_.at(i).begin(context, pictures);
  if (const auto k = control_of(i)) control_.at(*k).block.begin(context, pictures);
}

void WanTransformer::enter(const CallContext& f, State& s) {
  const int64_t head = c_.heads.unit, side = 2 * (head / 6);
  const int64_t axes[] = {head - 2 * side, side, side};
  const auto& at = s.positions[kWanVideo];
  s.ropes = {rope_of(at, axes, 10000, options_)};
  s.first_frame = at.select(1, 0).eq(0).sum().item<int64_t>();
  if (!f.probes) return;
  const auto doubled = [&](const at::Tensor& t) {  // [n, 1, 1, d], a pair of channels has one angle
    return at::repeat_interleave(t, 2, -1).unsqueeze(1).unsqueeze(1);
  };
  probe(f, "rope.0", doubled(s.ropes[0].cos), kWanVideo);
  probe(f, "rope.1", doubled(s.ropes[0].sin), kWanVideo);
}

void WanTransformer::embed(const CallContext& f, State& s, const at::Tensor& latents) {
  const int64_t own = 4 * c_.channels;
  s.x = cells_(latents.narrow(-1, 0, own));
  if (latents.size(-1) > own) {  // of a control video, which only adapters know
    ENSURE(added_cells_.defined());
    const auto control = latents.narrow(-1, own, own).to(added_cells_.scalar_type());
    s.x.add_(at::linear(control, added_cells_.flatten(1)));
  }
  probe(f, "patch_embedding", s.x, kWanVideo);
  if (!is_steered()) return;
  const auto control = control_cells_(s.control);
  probe(f, "vace_patch_embedding", control, kWanControl);
  s.x = at::cat({s.x, control});
}

// VACE's blocks need the video's tokens only as they were embedded: each runs right before the block that it
// steers, so that its tokens travel with the others.
void WanTransformer::block(int i, const CallContext& f, State& s) {
  const auto video = s.stream(kWanVideo);
  const auto k = control_of(i);
  at::Tensor hint;
  if (k) {
    const auto& steering = control_.at(*k);
    auto control = s.stream(kWanControl);
    if (steering.in) control.copy_(steering.in(control) + video);
    steering.block(f, s, s.ropes[0], control);
    hint = steering.out(control);
    if (f.probes) {
      probe(f, str("vace_blocks.", *k, ".0"), hint, kWanControl);
      probe(f, str("vace_blocks.", *k, ".1"), control, kWanControl);
    }
  }
  blocks_.at(i)(f, s, s.ropes[0], video);
  if (f.probes) probe(f, str("blocks.", i), video, kWanVideo);
  if (k) video.add_(hint * s.context->control_scales.select(0, static_cast<int64_t>(*k)));
}

at::Tensor WanTransformer::head(const CallContext& f, State& s) {
  const auto x = s.stream(kWanVideo).contiguous();
  if (f.probes) probe(f, "norm_out", at::layer_norm(x, {c_.width}, {}, {}, 1e-6), kWanVideo);
  const auto of = [&](const at::Tensor& row) -> Modulation {
    const auto m = chunks(last_, row, 2);  // shift first
    return {m[0], m[1], {}};
  };
  const int64_t given = s.context->given.defined() ? s.first_frame : 0;
  std::vector<ModulatedTokens> parts;
  if (given > 0) parts.push_back({given, of(s.context->given)});
  parts.push_back({x.size(0) - given, of(s.row)});
  const auto out = out_(norm(x, parts));
  probe(f, "proj_out", out, kWanVideo);
  // [n, B, place in the 2x2, channel] -> channel first, as packed latents have it
  return out.unflatten(-1, {4, c_.out_channels}).transpose(-1, -2).flatten(-2);
}

}  // namespace

std::unique_ptr<Model> build_wan(const Json& config, const Builder& b, std::span<const Range> blocks) {
  return std::make_unique<WanTransformer>(WanConfig(config), b, blocks);
}

}  // namespace atelier::models
