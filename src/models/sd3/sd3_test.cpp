// Stable Diffusion 3 as the engine meets it: sizes, the position table, both namings, presets, refusals; and
// the mathematics of a small model against plain formulas.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "base/testing.h"
#include "models/family.h"
#include "models/presets.h"
#include "models/sd3/names.h"
#include "models/text_encoder.h"
#include "nn/embedding.h"
#include "nn/testing.h"
#include "weights/tensors.h"

namespace atelier::models {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;
using weights::Tensors;
using weights::WeightStore;

constexpr int64_t kWidth = 12, kTable = 7, kText = 10, kPooled = 9, kChannels = 4;

const Family& sd3() {
  return *find_family("StableDiffusion3Pipeline");
}

// Three blocks, of which the first and the last attend twice.
Json small() {
  return {{"num_attention_heads", 3},     {"attention_head_dim", 4}, {"in_channels", kChannels},
          {"out_channels", nullptr},      {"num_layers", 3},         {"joint_attention_dim", kText},
          {"caption_projection_dim", 12}, {"qk_norm", "rms_norm"},   {"pooled_projection_dim", kPooled},
          {"pos_embed_max_size", kTable}, {"sample_size", 16},       {"dual_attention_layers", {0, 2}}};
}

// As the tensors tell it.
Json small_of_file() {
  Json config = small();
  config["out_channels"] = kChannels, config["patch_size"] = 2;
  return config;
}

// One model in both namings.
class Checkpoint {
 public:
  Tensors diffusers, original;

  Checkpoint() {
    same("context_embedder", "context_embedder", {kWidth, kText});
    same("pos_embed.proj", "x_embedder.proj", {kWidth, kChannels, 2, 2});
    diffusers["pos_embed.pos_embed"] = original["pos_embed"] = draw({1, kTable * kTable, kWidth});
    same("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0", {kWidth, 256});
    same("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2", {kWidth, kWidth});
    same("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0", {kWidth, kPooled});
    same("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2", {kWidth, kWidth});
    same("proj_out", "final_layer.linear", {4 * kChannels, kWidth});
    swapped("norm_out.linear", "final_layer.adaLN_modulation.1");
    for (int i = 0; i < 3; ++i) block(str("transformer_blocks.", i, "."), str("joint_blocks.", i, "."), i);
  }

 private:
  void block(const std::string& d, const std::string& o, int i) {
    const std::string image = o + "x_block.", text = o + "context_block.";
    same(d + "norm1.linear", image + "adaLN_modulation.1", {(i == 1 ? 6 : 9) * kWidth, kWidth});
    attention(d + "attn.", {"to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"}, image + "attn.", true);
    if (i != 1)
      attention(d + "attn2.", {"to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"}, image + "attn2.",
                true);
    attention(d + "attn.",
              {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k"},
              text + "attn.", i < 2);
    mlp(d + "ff.", image);
    if (i == 2) return swapped(d + "norm1_context.linear", text + "adaLN_modulation.1");
    same(d + "norm1_context.linear", text + "adaLN_modulation.1", {6 * kWidth, kWidth});
    mlp(d + "ff_context.", text);
  }
  at::Tensor draw(at::IntArrayRef sizes) { return nn::random(sizes, at::kFloat, ++seed_) * 0.3; }
  void same(const std::string& d, const std::string& o, std::vector<int64_t> weight) {
    for (const char* end : {".weight", ".bias"}) {
      diffusers[d + end] = original[o + end] = draw(weight);
      weight.resize(1);
    }
  }
  void swapped(const std::string& d, const std::string& o) {
    for (const char* end : {".weight", ".bias"}) {
      const auto shift =
          draw(std::string(end) == ".bias" ? at::IntArrayRef{kWidth} : at::IntArrayRef{kWidth, kWidth});
      const auto scale = shift * 2 - 0.1;
      diffusers[d + end] = at::cat({scale, shift});
      original[o + end] = at::cat({shift, scale});
    }
  }
  void attention(const std::string& d, std::array<const char*, 6> names, const std::string& o, bool closes) {
    for (const char* end : {".weight", ".bias"}) {
      std::vector<at::Tensor> parts;
      for (int i = 0; i < 3; ++i) {
        parts.push_back(
            draw(std::string(end) == ".bias" ? at::IntArrayRef{kWidth} : at::IntArrayRef{kWidth, kWidth}));
        diffusers[d + names[static_cast<size_t>(i)] + end] = parts.back();
      }
      original[o + "qkv" + end] = at::cat(parts);
    }
    if (closes) same(d + names[3], o + "proj", {kWidth, kWidth});
    diffusers[str(d, names[4], ".weight")] = original[o + "ln_q.weight"] = draw({4}) + 1;
    diffusers[str(d, names[5], ".weight")] = original[o + "ln_k.weight"] = draw({4}) + 1;
  }
  void mlp(const std::string& d, const std::string& o) {
    same(d + "net.0.proj", o + "mlp.fc1", {4 * kWidth, kWidth});
    same(d + "net.2", o + "mlp.fc2", {kWidth, 4 * kWidth});
  }
  uint64_t seed_ = 0;
};

Tensors with_prefix(const Tensors& all, const std::string& prefix) {
  Tensors out;
  for (const auto& [name, value] : all) out[prefix + name] = value;
  return out;
}

struct Loaded {
  TemporaryFolder folder;
  std::unique_ptr<WeightStore> store;
  nn::SingleRank one;
  std::unique_ptr<nn::Model> model;
  explicit Loaded(const Tensors& tensors, const Json& config = small(),
                  std::vector<Range> blocks = {{0, 3}}) {
    weights::write_tensors(folder / "model.safetensors", tensors);
    store = WeightStore::open(folder / "model.safetensors");
    store->adopt(sd3().names(config));
    model = sd3().build(config, one.builder(*store, at::TensorOptions(at::kDouble)), blocks);
  }
};

at::Tensor read(const WeightStore& store, const weights::ManifestEntry& entry) {
  auto out = at::empty(entry.shape, at::TensorOptions(at::kFloat));
  store.read_into(out, entry.name, entry.shape, {}, {});
  return out;
}

TEST(Sd3Names, BothNamingsAreOneModel) {
  const Checkpoint made;
  const Loaded folder(made.diffusers);
  folder.store->check(sd3().ignorable);
  for (const std::string prefix : {"", "model.diffusion_model."}) {
    auto tensors = with_prefix(made.original, prefix);
    tensors["first_stage_model.decoder.conv_in.weight"] = at::zeros({2, 2});
    tensors["text_encoders.clip_l.logit_scale"] = at::zeros({1});
    const Loaded file(tensors);
    file.store->check(sd3().ignorable);
    for (const auto& entry : folder.store->manifest())
      EXPECT_TRUE(at::equal(read(*file.store, entry), read(*folder.store, entry))) << prefix << entry.name;
    const Json config = sd3().config_of_file(*file.store, {{"attention_head_dim", 64}, {"sample_size", 16}});
    EXPECT_EQ(config, small_of_file());
  }
  EXPECT_EQ(sd3().config_of_file(*folder.store, {{"attention_head_dim", 64}, {"sample_size", 16}}),
            small_of_file());
}

TEST(Sd3Names, OtherFilesAreNoneAndBrokenOnesAreNamed) {
  const auto refused = [](const Tensors& tensors) {
    const TemporaryFolder folder;
    weights::write_tensors(folder / "a.safetensors", tensors);
    const auto store = WeightStore::open(folder / "a.safetensors");
    return error_of(Kind::kCheckpoint, [&] { sd3().config_of_file(*store, Json::object()); });
  };
  Checkpoint made;
  EXPECT_TRUE(has(refused({{"transformer_blocks.0.attn.to_q.weight", at::zeros({2, 2})}}),
                  "no Stable Diffusion 3 transformer"));
  made.diffusers.erase("pos_embed.pos_embed");
  EXPECT_TRUE(has(refused(made.diffusers), "pos_embed.pos_embed is missing"));
  made.original.erase("y_embedder.mlp.0.weight");
  EXPECT_TRUE(has(refused(made.original), "y_embedder.mlp.0.weight is missing"));
}

// The reference's formulas, batch first, in double.
class Plain {
 public:
  explicit Plain(const Tensors& weights) : w_(weights) {}

  at::Tensor operator()(const at::Tensor& latents, const at::Tensor& states, const at::Tensor& pooled,
                        float time, const at::Tensor& table) {
    auto x = linear("pos_embed.proj", latents) + table, y = linear("context_embedder", states);
    c_ = at::silu(
        mlp2("time_text_embed.timestep_embedder.", nn::sinusoid(at::full({1}, time), 256).to(at::kDouble)) +
        mlp2("time_text_embed.text_embedder.", pooled));
    for (int i = 0; i < 3; ++i) block(str("transformer_blocks.", i, "."), i, x, y);
    const auto m = linear("norm_out.linear", c_).chunk(2, -1);
    return linear("proj_out", modulated(x, m[1], m[0]));
  }

 private:
  at::Tensor w(const std::string& name) const { return w_.at(name).to(at::kDouble); }
  at::Tensor linear(const std::string& name, const at::Tensor& x) const {
    return at::linear(x, w(name + ".weight").flatten(1), w(name + ".bias"));
  }
  at::Tensor mlp2(const std::string& name, const at::Tensor& x) const {
    return linear(name + "linear_2", at::silu(linear(name + "linear_1", x)));
  }
  at::Tensor ff(const std::string& name, const at::Tensor& x) const {
    return linear(name + ".net.2", at::gelu(linear(name + ".net.0.proj", x), "tanh"));
  }
  static at::Tensor modulated(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale) {
    return at::layer_norm(x, {kWidth}, {}, {}, 1e-6) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1);
  }
  at::Tensor heads(const std::string& name, const std::string& norm, const at::Tensor& x) const {
    auto h = linear(name, x).unflatten(-1, {3, 4}).transpose(1, 2);
    if (norm.empty()) return h;
    return h * (h.square().mean(-1, true) + 1e-6).rsqrt() * w(norm + ".weight");
  }
  static at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return at::scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2);
  }
  void block(const std::string& p, int i, at::Tensor& x, at::Tensor& y) const {
    const bool is_last = i == 2, is_dual = i != 1;
    const auto m = linear(p + "norm1.linear", c_).chunk(is_dual ? 9 : 6, -1);
    const auto t = linear(p + "norm1_context.linear", c_).chunk(is_last ? 2 : 6, -1);
    const auto nx = modulated(x, m[0], m[1]),
               ny = is_last ? modulated(y, t[1], t[0]) : modulated(y, t[0], t[1]);
    const auto o = attend(at::cat({heads(p + "attn.to_q", p + "attn.norm_q", nx),
                                   heads(p + "attn.add_q_proj", p + "attn.norm_added_q", ny)},
                                  2),
                          at::cat({heads(p + "attn.to_k", p + "attn.norm_k", nx),
                                   heads(p + "attn.add_k_proj", p + "attn.norm_added_k", ny)},
                                  2),
                          at::cat({heads(p + "attn.to_v", "", nx), heads(p + "attn.add_v_proj", "", ny)}, 2));
    const auto gated = [](const at::Tensor& gate, const at::Tensor& v) { return gate.unsqueeze(1) * v; };
    const auto before = x;
    x = x + gated(m[2], linear(p + "attn.to_out.0", o.narrow(1, 0, x.size(1))));
    if (is_dual) {
      const auto n2 = modulated(before, m[6], m[7]);
      const auto alone =
          attend(heads(p + "attn2.to_q", p + "attn2.norm_q", n2),
                 heads(p + "attn2.to_k", p + "attn2.norm_k", n2), heads(p + "attn2.to_v", "", n2));
      x = x + gated(m[8], linear(p + "attn2.to_out.0", alone));
    }
    x = x + gated(m[5], ff(p + "ff", modulated(x, m[3], m[4])));
    if (is_last) return;
    y = y + gated(t[2], linear(p + "attn.to_add_out", o.narrow(1, x.size(1), y.size(1))));
    y = y + gated(t[5], ff(p + "ff_context", modulated(y, t[3], t[4])));
  }

  Tensors w_;
  at::Tensor c_;
};

TEST(Sd3, ComputesTheFormulasOfTheReference) {
  const Checkpoint made;
  const Loaded loaded(made.diffusers);
  const Grid g = sd3().grid(small(), 8, 48, 80, 1);
  const int64_t batch = 2, text = 6;
  const auto packed = sd3().pack(nn::random({batch, kChannels, g.latent_rows, g.latent_cols}));
  const auto states = nn::random({text, batch, kText}, at::kDouble, 2),
             pooled = nn::random({batch, kPooled}, at::kDouble, 3);
  nn::CallContext call;
  call.streams = {{.patches = {g.tokens(), 1}}, {.patches = {text, 1}}};
  const float time = 712.5;
  const auto context = loaded.model->begin(
      call, {.streams = {states}, .whole = {{"pooled", pooled}}, .lengths = {}}, {&time, 1});
  nn::State s;
  s.n = {g.tokens(), text};
  for (const int stream : {0, 1})
    s.positions.push_back(sd3().coordinates(small(), g, stream, s.n[static_cast<size_t>(stream)]));
  s.context = &context, s.row = context.tables[0];
  loaded.model->enter(call, s);
  loaded.model->embed(call, s, packed);
  for (int i = 0; i < 3; ++i) loaded.model->block(i, call, s);
  const auto ours = loaded.model->head(call, s);  // [n, B, (c, dy, dx)]
  const auto table =
      made.diffusers.at("pos_embed.pos_embed")[0].to(at::kDouble).view({kTable, kTable, kWidth});
  const auto crop = table.narrow(0, 2, 3).narrow(1, 1, 5).flatten(0, 1);
  const auto theirs =
      Plain(made.diffusers)(packed.transpose(0, 1), states.transpose(0, 1), pooled, time, crop);
  const auto in_our_order = theirs.unflatten(-1, {4, kChannels}).transpose(-1, -2).flatten(-2);
  EXPECT_LT(distance(ours.transpose(0, 1), in_our_order), 1e-12);
}

TEST(Sd3, CropsTheMiddleOfThePositionTable) {
  const Grid g = sd3().grid(small(), 8, 48, 112, 1);
  EXPECT_EQ(std::pair(g.rows, g.cols), std::pair(int64_t{3}, int64_t{7}));
  const auto at = sd3().coordinates(small(), g, sd3().latent_stream(), g.tokens());
  EXPECT_EQ(at[0][0].item<int64_t>(), 2 * kTable);
  EXPECT_EQ(at[20][0].item<int64_t>(), 4 * kTable + 6);
  EXPECT_EQ(sd3().coordinates(small(), g, 1, 4).abs().max().item<int64_t>(), 0);
}

TEST(Sd3, SizesFarFromTheDesignComeWithANote) {
  auto config = small();
  config["sample_size"] = 8;
  EXPECT_EQ(sd3().grid(config, 8, 64, 64, 1).note, "");
  const auto note = sd3().grid(config, 8, 64, 96, 1).note;
  EXPECT_TRUE(has(note, "96x64") && has(note, "64x64")) << note;
}

TEST(Sd3, SizesThatItCannotDrawAreRefusedWithOnesThatItCan) {
  const auto odd = error_of(Kind::kUsage, [] { sd3().grid(small(), 8, 70, 64, 1); });
  EXPECT_TRUE(has(odd, "64x70") && has(odd, "multiples of 16 up to 112") && has(odd, "try 64x64")) << odd;
  const auto wide = error_of(Kind::kUsage, [] { sd3().grid(small(), 8, 64, 2048, 1); });
  EXPECT_TRUE(has(wide, "try 112x64")) << wide;
}

TEST(Sd3, DefaultsFollowTheConfig) {
  const auto d = sd3().defaults(small());
  EXPECT_EQ(d.height, 128);
  EXPECT_EQ(d.steps, 28);
  EXPECT_EQ(d.guidance, 7);
  EXPECT_EQ(d.max_sequence_length, 256);
  const ModelFacts f = sd3().facts(small());
  EXPECT_EQ(f.heads, 3);
  EXPECT_EQ(f.blocks, 3);
  EXPECT_GT(f.cost.at(0), f.cost.at(1));
  EXPECT_EQ(f.cost.at(0), f.cost.at(2));
}

TEST(Sd3, ConfigsThatItDoesNotHaveAreNamed) {
  const auto refused = [](const char* key, const Json& value) {
    Json config = small();
    config[key] = value;
    return error_of(Kind::kCheckpoint, [&] { sd3().facts(config); });
  };
  EXPECT_TRUE(has(refused("patch_size", 1), "patch_size must be 2")) << refused("patch_size", 1);
  EXPECT_TRUE(has(refused("caption_projection_dim", 16), "caption_projection_dim must be 12"));
  EXPECT_TRUE(has(refused("out_channels", 8), "out_channels must be 4"));
  EXPECT_TRUE(has(refused("qk_norm", "l2"), "qk_norm must be null")) << refused("qk_norm", "l2");
  EXPECT_TRUE(has(refused("pos_embed_max_size", nullptr), "pos_embed_max_size is null"));
  EXPECT_TRUE(has(refused("dual_attention_layers", 3), "dual_attention_layers must be a list"));
  EXPECT_EQ(refused("qk_norm", nullptr), "no error");
  EXPECT_EQ(refused("qk_norm", "layer_norm"), "no error");
}

// Numbers that a component reads, built on no device.
template <class Build>
int64_t elements(const Build& build) {
  nn::SingleRank one;
  const auto store = WeightStore::dummy(1);
  build(one.builder(*store, at::TensorOptions(at::kFloat).device(at::kMeta)));
  int64_t n = 0;
  for (const auto& a : store->manifest())
    n += std::accumulate(a.shape.begin(), a.shape.end(), int64_t{1}, std::multiplies<>());
  return n;
}
int64_t of_transformer(const Json& pipeline) {
  const Json& config = pipeline["transformer"];
  const Range all{0, sd3().facts(config).blocks};
  return elements([&](const nn::Builder& b) { sd3().build(config, b, {&all, 1}); });
}
int64_t of_encoder(const Json& config) {
  return elements([&](const nn::Builder& b) { find_encoder(config).build(config, b); });
}

// Of the published checkpoints, position tables included, less the last block's queries of the text.
TEST(Sd3, PresetsHaveThePublishedNumberOfParameters) {
  const Json medium = preset("stable-diffusion-3-medium");
  EXPECT_EQ(of_transformer(medium), 2'084'951'104 - 2'360'832);
  EXPECT_EQ(of_transformer(preset("stabilityai/stable-diffusion-3.5-medium")), 2'469'663'936 - 2'360'896);
  EXPECT_EQ(of_transformer(preset("sd3.5-large")), 8'146'280'768 - 5'917'120);
  EXPECT_EQ(of_encoder(medium["text_encoder"]), 123'650'304);
  EXPECT_EQ(of_encoder(medium["text_encoder_2"]), 694'659'840);
}

}  // namespace
}  // namespace atelier::models
