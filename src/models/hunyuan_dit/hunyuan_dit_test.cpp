// HunyuanDiT against the same mathematics written out plainly, sample by sample and without any seam; and
// what the engine is told about it.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "models/family.h"
#include "models/hunyuan_dit/config.h"
#include "models/presets.h"
#include "models/text_encoder.h"
#include "models/vae.h"
#include "nn/embedding.h"
#include "nn/testing.h"

namespace atelier::models {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const Family& hunyuan() {
  return *find_family("HunyuanDiTPipeline");
}

Json small(bool has_sizes, int blocks = 6) {
  return {{"num_attention_heads", 3},
          {"attention_head_dim", 8},
          {"hidden_size", 24},
          {"in_channels", 4},
          {"patch_size", 2},
          {"num_layers", blocks},
          {"mlp_ratio", 4.3637},
          {"cross_attention_dim", 12},
          {"cross_attention_dim_t5", 16},
          {"pooled_projection_dim", 10},
          {"text_len", 5},
          {"text_len_t5", 7},
          {"sample_size", 128},
          {"use_style_cond_and_image_meta_size", has_sizes}};
}

// What of diffusers' HunyuanDiT2DModel.forward concerns one sample, in double. Tensors are [tokens, C].
class Plain {
 public:
  Plain(const weights::WeightStore& store, const Json& config, bool as_published)
      : store_(store), c_(config), as_published_(as_published) {}

  at::Tensor run(double time, const at::Tensor& text, const at::Tensor& t5, const at::Tensor& mask,
                 const at::Tensor& sizes, const at::Tensor& tokens, int64_t rows, int64_t cols) const {
    const auto condition = at::silu(mlp("time_extra_emb.timestep_embedder", wave(at::tensor({time}))) +
                                    mlp("time_extra_emb.extra_embedder", extra(t5, sizes)));
    const auto prompt = at::where(mask.unsqueeze(1), at::cat({text, mlp("text_embedder", t5)}),
                                  weight("text_embedding_padding"));
    auto x = at::linear(tokens, weight("pos_embed.proj.weight").flatten(1), weight("pos_embed.proj.bias"));
    std::vector<at::Tensor> skips;
    for (int i = 0; i < c_.blocks; ++i) {
      const std::string b = str("blocks.", i, ".");
      if (i > c_.blocks / 2) {
        x = linear(b + "skip_linear", norm(b + "skip_norm", at::cat({x, skips.back()}, 1)));
        skips.pop_back();
      }
      const auto y = norm(b + "norm1.norm", x) + linear(b + "norm1.linear", condition);
      const auto qkv = linear(b + "attn1.qkv", y).chunk(3, 1);
      x = x + attention(b + "attn1.", qkv[0], qkv[1], qkv[2], rows, cols, true);
      const auto kv = linear(b + "attn2.kv", prompt).chunk(2, 1);
      const auto q = linear(b + "attn2.to_q", norm(b + "norm2", x));
      x = x + attention(b + "attn2.", q, kv[0], kv[1], rows, cols, false);
      x = x + linear(b + "ff.net.2", at::gelu(linear(b + "ff.net.0.proj", norm(b + "norm3", x)), "tanh"));
      if (i < c_.blocks / 2 - 1) skips.push_back(x);
    }
    const auto m = linear("norm_out.linear", condition).chunk(2, 1);
    x = at::layer_norm(x, {c_.width}, {}, {}, 1e-6) * (1 + m[0]) + m[1];
    // (row, column, channel) of eight channels -> the first four, (channel, row, column)
    return linear("proj_out", x).view({-1, 2, 2, 8}).narrow(-1, 0, 4).permute({0, 3, 1, 2}).flatten(1);
  }

 private:
  at::Tensor weight(const std::string& name) const {
    for (const auto& entry : store_.manifest()) {
      if (entry.name != name) continue;
      auto out = at::zeros(entry.shape, at::TensorOptions(at::kDouble));
      store_.read_into(out, name, entry.shape, {}, {});
      return out;
    }
    ADD_FAILURE() << "nobody reads " << name;
    return at::zeros({1, 1});
  }
  at::Tensor linear(const std::string& name, const at::Tensor& x) const {
    return at::linear(x, weight(name + ".weight"), weight(name + ".bias"));
  }
  at::Tensor mlp(const std::string& name, const at::Tensor& x) const {
    return linear(name + ".linear_2", at::silu(linear(name + ".linear_1", x)));
  }
  at::Tensor norm(const std::string& name, const at::Tensor& x) const {
    return at::layer_norm(x, {x.size(-1)}, weight(name + ".weight"), weight(name + ".bias"), 1e-6);
  }
  // [n] -> [n, 256], cosines first, then sines; frequencies in float as everywhere.
  static at::Tensor wave(const at::Tensor& values) {
    return nn::sinusoid(values.to(at::kFloat), 256).to(at::kDouble);
  }
  at::Tensor extra(const at::Tensor& t5, const at::Tensor& sizes) const {
    const std::string p = "time_extra_emb.pooler.";
    const auto x = at::cat({t5.mean(0, true), t5}) + weight(p + "positional_embedding");
    const auto pooled =
        attend(linear(p + "q_proj", x.narrow(0, 0, 1)), linear(p + "k_proj", x), linear(p + "v_proj", x), 2);
    auto projected = linear(p + "c_proj", pooled);
    if (!c_.has_sizes) return projected;
    return at::cat(
        {projected, wave(sizes).flatten().unsqueeze(0), weight("time_extra_emb.style_embedder.weight")}, 1);
  }
  // q [n, h * d], k and v [m, h * d].
  static at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t d) {
    const auto heads = [&](const at::Tensor& t) { return t.view({t.size(0), -1, d}).transpose(0, 1); };
    const auto scores = at::matmul(heads(q), heads(k).transpose(1, 2)) / std::sqrt(static_cast<double>(d));
    return at::matmul(at::softmax(scores, -1), heads(v)).transpose(0, 1).flatten(1);
  }
  at::Tensor attention(const std::string& name, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       int64_t rows, int64_t cols, bool turns_keys) const {
    const int64_t d = c_.heads.unit;
    const auto per_head = [&](const char* which, const at::Tensor& t) {
      return norm(name + which, t.view({t.size(0), -1, d}));
    };
    const auto turned = turn(per_head("norm_q", q), rows, cols);
    const auto keys = turns_keys ? turn(per_head("norm_k", k), rows, cols) : per_head("norm_k", k);
    return linear(name + "to_out.0", attend(turned.flatten(1), keys.flatten(1), v, d));
  }
  static double units_of(int64_t n, int64_t longer) {
    return std::nearbyint(32.0 * static_cast<double>(n) / static_cast<double>(longer));
  }
  // Pairs of channels, half of them by the column, half by the row. x [n, h, d].
  at::Tensor turn(const at::Tensor& x, int64_t rows, int64_t cols) const {
    const int64_t longer = std::max(rows, cols), quarter = x.size(2) / 4;
    const auto position = [&](int64_t i, int64_t n) {
      if (n == 1) return std::nearbyint((32 - units_of(n, longer)) / 2);
      const double first = std::nearbyint((32 - units_of(n, longer)) / 2), end = first + units_of(n, longer);
      const double part = static_cast<double>(n - 1) / static_cast<double>(n);
      const double last = as_published_ ? first + (end - first) * part : end * part;
      return first + (last - first) * static_cast<double>(i) / static_cast<double>(n - 1);
    };
    auto out = x.clone();
    for (int64_t token = 0; token < x.size(0); ++token) {
      for (int64_t pair = 0; pair < 2 * quarter; ++pair) {
        const double at = pair < quarter ? position(token % cols, cols) : position(token / cols, rows);
        const double angle =
            at * std::pow(10000.0, -static_cast<double>(pair % quarter) / static_cast<double>(quarter));
        const auto a = x[token].select(1, 2 * pair), b = x[token].select(1, 2 * pair + 1);
        out[token].select(1, 2 * pair).copy_(a * std::cos(angle) - b * std::sin(angle));
        out[token].select(1, 2 * pair + 1).copy_(b * std::cos(angle) + a * std::sin(angle));
      }
    }
    return out;
  }

  const weights::WeightStore& store_;
  HunyuanConfig c_;
  bool as_published_;
};

struct Built {
  Json config;
  std::unique_ptr<weights::WeightStore> store = weights::WeightStore::dummy(3);
  nn::SingleRank one;
  std::unique_ptr<nn::Model> model;

  explicit Built(Json j) : config(std::move(j)) {
    const Range all{0, hunyuan().facts(config).blocks};
    model = hunyuan().build(config, one.builder(*store, at::TensorOptions(at::kDouble)), std::span(&all, 1));
  }
  // One call with one step, as the executor makes it.
  at::Tensor run(float time, const nn::Conditioning& given, const at::Tensor& tokens, const Grid& g) {
    nn::CallContext call{.streams = {{.patches = {g.tokens(), 1}}}};
    auto context = model->begin(call, given, std::span(&time, 1));
    nn::State s{.n = {g.tokens()}, .positions = {hunyuan().coordinates(config, g, 0, g.tokens())}};
    for (int i = 0; i < model->blocks(); ++i) model->begin_block(i, given, context);
    s.context = &context;
    s.row = context.tables[0];
    model->enter(call, s);
    model->embed(call, s, tokens);
    for (int i = 0; i < model->blocks(); ++i) model->block(i, call, s);
    return model->head(call, s);
  }
};

nn::Conditioning prompts_of(const HunyuanConfig& c, const std::vector<int64_t>& texts,
                            const std::vector<int64_t>& t5s) {
  const auto mask = [](const std::vector<int64_t>& lengths, int64_t tokens) {
    return (at::arange(tokens) < at::tensor(lengths).unsqueeze(1)).to(at::kLong);
  };
  const int64_t batch = std::ssize(texts);
  nn::Conditioning given;
  given.whole = {{"embeds", nn::random({batch, c.text_tokens, c.text_width}, at::kDouble, 5)},
                 {"embeds_2", nn::random({batch, c.t5_tokens, c.t5_width}, at::kDouble, 6)},
                 {"mask", mask(texts, c.text_tokens)},
                 {"mask_2", mask(t5s, c.t5_tokens)}};
  if (c.has_sizes)
    given.whole["sizes"] = at::tensor({1024.f, 1024.f, 96.f, 64.f, 0.f, 16.f}).repeat({batch, 1});
  return given;
}

void expect_plain(const Json& config, int64_t height, int64_t width, bool as_published = false) {
  Built built(config);
  const HunyuanConfig c(config);
  auto g = hunyuan().grid(config, 8, height, width, 1);
  g.as_published = as_published;
  const auto given = prompts_of(c, {2, 5}, {7, 1});
  const auto tokens = nn::random({g.tokens(), 2, g.channels}, at::kDouble, 9);
  const auto ours = built.run(951, given, tokens, g);
  const Plain plain(*built.store, config, as_published);
  for (int64_t b = 0; b < 2; ++b) {
    const auto of = [&](const char* name) { return given.whole.at(name)[b]; };
    const auto mask = at::cat({of("mask"), of("mask_2")}).to(at::kBool);
    const auto sizes = c.has_sizes ? of("sizes") : at::Tensor();
    const auto expected =
        plain.run(951, of("embeds"), of("embeds_2"), mask, sizes, tokens.select(1, b), g.rows, g.cols);
    EXPECT_LT(distance(ours.select(1, b), expected), 1e-5) << config.dump() << " sample " << b;
  }
}

TEST(HunyuanDit, IsWhatTheFormulasSay) {
  expect_plain(small(true), 96, 64);
  expect_plain(small(false), 32, 112);
}

TEST(HunyuanDit, HasThePositionsOfItsRepositoryWhereOthersCallIt) {
  expect_plain(small(true), 96, 64, true);
  expect_plain(small(false), 32, 112, true);
}

TEST(HunyuanDit, HasNoSkipsInFewerThanFourBlocks) {
  for (const int blocks : {1, 2}) {
    EXPECT_FALSE(hunyuan().facts(small(false, blocks)).has_skips);
    expect_plain(small(false, blocks), 48, 48);
  }
  EXPECT_TRUE(hunyuan().facts(small(false, 4)).has_skips);
  expect_plain(small(true, 4), 16, 32);
}

TEST(HunyuanDit, DrawsSizesOfWholeTokens) {
  const auto g = hunyuan().grid(small(true), 8, 48, 80, 1);
  EXPECT_EQ(g.rows, 3);
  EXPECT_EQ(g.latent_cols, 10);
  const auto latents = nn::random({2, 4, 6, 10});
  EXPECT_EQ(distance(hunyuan().unpack(hunyuan().pack(latents), g), latents), 0);
  const auto odd = error_of(Kind::kUsage, [] { hunyuan().grid(small(true), 8, 70, 1000, 1); });
  EXPECT_TRUE(has(odd, "1000x70") && has(odd, "multiples of 16") && has(odd, "1008x64")) << odd;
  const auto vae = error_of(Kind::kCheckpoint, [] { hunyuan().grid(small(true), 4, 64, 64, 1); });
  EXPECT_TRUE(has(vae, "VAE")) << vae;
  EXPECT_EQ(hunyuan().defaults(small(true)).height, 1024);
}

TEST(HunyuanDit, SaysWhichSizesItWasNotMadeFor) {
  const auto note = [](int64_t height, int64_t width) {
    return hunyuan().grid(small(true), 8, height, width, 1).note;
  };
  EXPECT_EQ(note(1024, 1024), "");
  EXPECT_EQ(note(960, 1280), "");
  EXPECT_TRUE(has(note(2048, 2048), "2048x2048") && has(note(2048, 2048), "1280x1280")) << note(2048, 2048);
  EXPECT_TRUE(has(note(1152, 768), "(768x1024 is")) << note(1152, 768);
  EXPECT_TRUE(has(note(512, 1024), "1280x768")) << note(512, 1024);
}

TEST(HunyuanDit, ConfigsThatCannotBeAreNamed) {
  const auto refused = [](const char* key, const Json& value) {
    Json config = small(true);
    config[key] = value;
    const auto error = error_of(Kind::kCheckpoint, [&] { hunyuan().facts(config); });
    EXPECT_TRUE(has(error, key)) << error;
  };
  refused("num_layers", 5);
  refused("patch_size", 1);
  refused("hidden_size", 32);
  refused("activation_fn", "geglu");
  refused("learn_sigma", false);
  refused("cross_attention_dim_t5", 12);
  refused("mlp_ratio", 0.001);
  refused("mlp_ratio", 1e300);
  Json narrow = small(true);
  narrow["attention_head_dim"] = 6, narrow["hidden_size"] = 18;
  EXPECT_TRUE(has(error_of(Kind::kCheckpoint, [&] { hunyuan().facts(narrow); }), "attention_head_dim"));
}

// Names and shapes of what these blocks and their ends read, as one of `cuts` parts.
std::map<std::string, std::vector<int64_t>> read_by(const Json& config, std::vector<Range> blocks,
                                                    int cuts = 1) {
  const auto store = weights::WeightStore::dummy(1);
  nn::SingleRank one(0, cuts);
  hunyuan().build(config, one.builder(*store, at::TensorOptions(at::kFloat).device(at::kMeta)), blocks);
  std::map<std::string, std::vector<int64_t>> all;
  for (const auto& entry : store->manifest()) all[entry.name] = entry.shape;
  return all;
}

TEST(HunyuanDit, StagesOfAFoldedRouteReadTheWholeTogether) {
  const auto whole = read_by(small(true), {{0, 6}});
  auto outer = read_by(small(true), {{0, 1}, {5, 1}});
  const auto inner = read_by(small(true), {{1, 4}});
  EXPECT_TRUE(outer.contains("blocks.5.skip_linear.weight") && outer.contains("proj_out.weight"));
  EXPECT_FALSE(inner.contains("pos_embed.proj.weight") || inner.contains("norm_out.linear.weight"));
  EXPECT_FALSE(whole.contains("blocks.3.skip_linear.weight"));
  outer.insert(inner.begin(), inner.end());
  EXPECT_EQ(outer, whole);
  EXPECT_EQ(read_by(small(true), {{0, 6}}, 2), whole);
}

// As the reference's classes have with the published configs.
TEST(HunyuanDit, PresetsHaveThePublishedNumberOfParameters) {
  const auto count = [](const auto& family, const Json& config) {
    nn::SingleRank one;
    const auto store = weights::WeightStore::dummy(1);
    family.build(config, one.builder(*store, at::TensorOptions(at::kFloat).device(at::kMeta)));
    int64_t n = 0;
    for (const auto& entry : store->manifest()) n += c10::multiply_integers(entry.shape);
    return n;
  };
  const auto denoiser = [](const Json& config) {
    int64_t n = 0;
    for (const auto& [name, shape] : read_by(config, {{0, 40}})) n += c10::multiply_integers(shape);
    return n;
  };
  const Json newer = preset("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"), older = preset("hunyuan-dit-v1.1");
  EXPECT_EQ(denoiser(newer["transformer"]), 1'499'952'032);
  EXPECT_EQ(denoiser(older["transformer"]), 1'516'534'048);
  EXPECT_EQ(preset("HunyuanDiT-v1.1-Diffusers-Distilled"), older);
  EXPECT_EQ(count(find_encoder(newer["text_encoder"]), newer["text_encoder"]), 352'035'840);
  EXPECT_EQ(count(find_encoder(newer["text_encoder_2"]), newer["text_encoder_2"]), 1'669'958'656);
  EXPECT_EQ(count(find_vae(newer["vae"]), newer["vae"]), 83'653'863);
}

// Remembers what it was asked.
struct FakeEncoders : Encoders {
  std::vector<TextCall> calls;
  bool has(std::string_view) const override { return true; }
  TextStates encode(const TextCall& call, std::span<const std::string> texts) override {
    calls.push_back(call);
    TextStates out;
    out.states = at::zeros({std::ssize(texts), call.length, call.encoder == "text_encoder" ? 12 : 16});
    for (const auto& text : texts) out.lengths.push_back(std::min(call.length, std::ssize(text) + 1));
    out.mask = (at::arange(call.length) < at::tensor(out.lengths).unsqueeze(1)).to(at::kLong);
    return out;
  }
};

TEST(HunyuanDit, PromptsCarryTheirMasksAndSizes) {
  const Json config = small(true), index;
  FakeEncoders encoders;
  PromptBatch p{.texts = {{{"ab", "abcdefgh"}, {"abcd", ""}, {}}}, .pipeline = index, .denoiser = config};
  p.max_sequence_length = 256, p.height = 96, p.width = 64;
  const auto given = hunyuan().condition(encoders, p);
  ASSERT_EQ(encoders.calls.size(), 2u);
  EXPECT_EQ(encoders.calls[0].length, 5);
  EXPECT_EQ(encoders.calls[1].length, 7);
  EXPECT_EQ(encoders.calls[1].padding, TextCall::Padding::kMasked);
  EXPECT_EQ(distance(given.whole.at("mask").sum(1), at::tensor({3, 5})), 0);
  EXPECT_EQ(distance(given.whole.at("mask_2").sum(1), at::tensor({5, 1})), 0);
  EXPECT_EQ(given.whole.at("mask_2")[0][4].item<int64_t>(), 1);
  EXPECT_EQ(distance(given.whole.at("sizes")[1], at::tensor({1024, 1024, 96, 64, 0, 0})), 0);
  EXPECT_TRUE(given.lengths.empty()) << "padding is replaced, not hidden";
  p.sizes = {{{512, 768}}, {{8, 24}}, {{640, 480}}};
  const auto told = hunyuan().condition(encoders, p);
  EXPECT_EQ(distance(told.whole.at("sizes")[0], at::tensor({512, 768, 640, 480, 8, 24})), 0);
  p.max_sequence_length = 6;
  const auto shorter = error_of(Kind::kUsage, [&] { hunyuan().condition(encoders, p); });
  EXPECT_TRUE(has(shorter, "max_sequence_length is 6")) << shorter;
}

}  // namespace
}  // namespace atelier::models
