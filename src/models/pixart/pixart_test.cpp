// PixArt as the engine meets it: facts, sizes and their notes, which blocks are built, positions of
// any grid, presets.
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "models/family.h"
#include "models/presets.h"
#include "models/text_encoder.h"
#include "models/vae.h"
#include "nn/testing.h"

namespace atelier::models {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const Family& pixart() {
  return *find_family("PixArtSigmaPipeline");
}

Json small_pixart() {
  return {{"num_attention_heads", 3}, {"attention_head_dim", 8}, {"in_channels", 4},
          {"out_channels", 8},        {"num_layers", 3},         {"cross_attention_dim", 24},
          {"caption_channels", 10},   {"sample_size", 32},       {"use_additional_conditions", false}};
}

struct Built {
  std::unique_ptr<weights::WeightStore> store = weights::WeightStore::dummy(1);
  nn::SingleRank one;
  std::unique_ptr<nn::Model> model;
  Built(const Json& config, std::vector<Range> blocks,
        at::TensorOptions options = at::TensorOptions(at::kDouble))
      : model(pixart().build(config, one.builder(*store, options), blocks)) {}
  std::set<std::string> names() const {
    std::set<std::string> all;
    for (const auto& a : store->manifest()) all.insert(a.name);
    return all;
  }
};

const at::TensorOptions kShapes = at::TensorOptions(at::kFloat).device(at::kMeta);

TEST(PixArt, BuildsOnlyItsBlocksAndItsEnds) {
  const auto names = [](std::vector<Range> blocks) {
    return Built(small_pixart(), std::move(blocks), kShapes).names();
  };
  const auto whole = names({{0, 3}}), middle = names({{1, 1}});
  EXPECT_TRUE(whole.contains("pos_embed.proj.weight") && whole.contains("proj_out.weight"));
  EXPECT_FALSE(middle.contains("pos_embed.proj.weight") || middle.contains("proj_out.weight"));
  EXPECT_TRUE(middle.contains("blocks.1.qkv.weight") && middle.contains("adaln_single.linear.weight"));
  EXPECT_FALSE(middle.contains("blocks.0.qkv.weight"));
  auto together = names({{0, 1}, {2, 1}});
  together.merge(names({{1, 1}}));
  EXPECT_EQ(together, whole);
}

TEST(PixArt, FactsAndDefaultsFollowTheConfig) {
  EXPECT_EQ(pixart().facts(small_pixart()).heads, 3);
  EXPECT_EQ(pixart().facts(small_pixart()).blocks, 3);
  const auto d = pixart().defaults(small_pixart());
  EXPECT_EQ(d.steps, 20);
  EXPECT_EQ(d.guidance, 4.5);
  EXPECT_EQ(d.height, 256);
  EXPECT_EQ(d.max_sequence_length, 300);
  EXPECT_EQ(find_family("PixArtAlphaPipeline")->defaults(small_pixart()).max_sequence_length, 120);
}

TEST(PixArt, SizesFarFromTheDesignComeWithANote) {
  const auto note = [](int64_t height, int64_t width) {
    return pixart().grid(small_pixart(), 8, height, width, 1).note;
  };
  EXPECT_EQ(note(256, 256), "");
  EXPECT_EQ(note(128, 512), "") << "as many pixels";
  const auto small = note(64, 96);
  EXPECT_TRUE(has(small, "96x64") && has(small, "256x256")) << small;
  EXPECT_NE(note(112, 576), "") << "more than one to four";
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { note(70, 96); }), "try 96x64"));
}

// [rows * cols, C] of a model whose cells add nothing.
at::Tensor positions(const Json& config, int64_t rows, int64_t cols) {
  Built b(config, {{0, 3}});
  const auto grid = pixart().grid(config, 8, 16 * rows, 16 * cols, 1);
  nn::State s;
  s.positions = {pixart().coordinates(config, grid, 0, grid.tokens())};
  b.model->enter({}, s);
  return s.position_embeddings.squeeze(1);
}

TEST(PixArt, EveryGridIsStretchedToTheTrainedRange) {
  Json config = small_pixart();
  const auto own = positions(config, 16, 16), wide = positions(config, 4, 8);
  ASSERT_EQ(wide.sizes(), (at::IntArrayRef{32, 24}));
  // Row 3 of 4 is where row 12 of 16 is, column 5 of 8 where column 10 is.
  EXPECT_LT(distance(wide[3 * 8 + 5], own[12 * 16 + 10]), 1e-6);
  // Columns first, sines first: channel 1 has the frequency 10000^(-1/6).
  EXPECT_NEAR(own[12 * 16 + 10][1].item<float>(), std::sin(10 * std::pow(10000, -1.0 / 6)), 1e-6);
  EXPECT_NEAR(own[12 * 16 + 10][7].item<float>(), std::cos(10 * std::pow(10000, -1.0 / 6)), 1e-6);
  EXPECT_NEAR(own[12 * 16 + 10][12].item<float>(), std::sin(12), 1e-5);
  config["interpolation_scale"] = 2;
  EXPECT_NEAR(positions(config, 16, 16)[12 * 16 + 10][12].item<float>(), std::sin(6), 1e-5);
  EXPECT_EQ(positions(config, 4, 4).size(0), 16);
}

TEST(PixArt, SizesAreConditionsWhereTheConfigSaysSo) {
  Json config = small_pixart();
  config["use_additional_conditions"] = true;
  Built b(config, {{0, 3}});
  const auto tables = [&](float height, float width) {
    const nn::Conditioning given{.whole = {{"embeds", nn::random({2, 5, 10})},
                                           {"resolution", at::tensor({height, width})},
                                           {"aspect_ratio", at::tensor({height / width})}}};
    const float times[] = {999, 500};
    return b.model->begin({}, given, times).tables;
  };
  const auto square = tables(256, 256);
  EXPECT_EQ(square.size(0), 2);
  EXPECT_EQ(square.size(1), 2) << "a row for each sample";
  EXPECT_GT(distance(square, tables(256, 128)), 1e-3);
  EXPECT_GT(distance(tables(128, 256), tables(256, 128)), 1e-3);
}

TEST(PixArt, ConfigsThatCannotBeAreNamed) {
  const auto refused = [](const char* key, const Json& value) {
    Json config = small_pixart();
    config[key] = value;
    return error_of(Kind::kCheckpoint, [&] { pixart().facts(config); });
  };
  EXPECT_TRUE(has(refused("norm_type", "ada_norm_zero"), "norm_type must be ada_norm_single"));
  EXPECT_TRUE(has(refused("activation_fn", "geglu"), "activation_fn must be gelu-approximate"));
  EXPECT_TRUE(has(refused("attention_type", "gated"), "attention_type"));
  EXPECT_TRUE(has(refused("norm_eps", 1e-5), "norm_eps"));
  EXPECT_TRUE(has(refused("norm_elementwise_affine", true), "norm_elementwise_affine"));
  EXPECT_TRUE(has(refused("patch_size", 4), "patch_size"));
  EXPECT_TRUE(
      has(refused("out_channels", 6), "out_channels must be in_channels (4) or twice as many, found 6"));
  EXPECT_TRUE(has(refused("cross_attention_dim", 30), "cross_attention_dim is 30"));
  EXPECT_TRUE(has(refused("interpolation_scale", -1), "interpolation_scale"));
  Json odd = small_pixart();
  odd["attention_head_dim"] = 20, odd["num_attention_heads"] = 4, odd["cross_attention_dim"] = 80;
  odd["use_additional_conditions"] = true;
  EXPECT_TRUE(has(error_of(Kind::kCheckpoint, [&] { pixart().facts(odd); }), "divisible by 3, found 80"));
}

// What condition() asks of the encoder.
struct Recorded : Encoders {
  TextCall call{};
  bool has(std::string_view) const override { return true; }
  TextStates encode(const TextCall& asked, std::span<const std::string> texts) override {
    call = asked;
    const auto n = static_cast<int64_t>(texts.size());
    return {.states = nn::random({n, asked.length, 10}),
            .lengths = std::vector<int64_t>(texts.size(), 2),
            .mask = at::ones({n, asked.length}, at::kLong)};
  }
};

TEST(PixArt, ReadsLoweredTextsUnderAMask) {
  const Json index = Json::object();
  Json config = small_pixart();
  Recorded encoders;
  const PromptBatch prompts{.texts = {{{"A", "B"}, {}, {}}},
                            .pipeline = index,
                            .denoiser = config,
                            .max_sequence_length = 7,
                            .height = 64,
                            .width = 128};
  const auto made = pixart().condition(encoders, prompts);
  EXPECT_EQ(encoders.call.padding, TextCall::Padding::kMasked);
  EXPECT_EQ(encoders.call.cleaning, TextCall::Cleaning::kLowerStripped);
  EXPECT_EQ(made.lengths, (std::vector<int64_t>{2, 2}));
  EXPECT_FALSE(made.whole.contains("aspect_ratio"));
  config["use_additional_conditions"] = true;
  EXPECT_EQ(pixart().condition(encoders, prompts).whole.at("aspect_ratio").item<float>(), 0.5f);
}

int64_t elements(const weights::WeightStore& store) {
  int64_t n = 0;
  for (const auto& a : store.manifest())
    n += std::accumulate(a.shape.begin(), a.shape.end(), int64_t{1}, std::multiplies<>());
  return n;
}

TEST(PixArt, PresetsHaveThePublishedNumberOfParameters) {
  for (const char* name :
       {"PixArt-Sigma-XL-2-1024-MS", "pixart-sigma-512", "PixArt-alpha/PixArt-Sigma-XL-2-2K-MS"}) {
    const Json all = preset(name);
    EXPECT_EQ(elements(*Built(all["transformer"], {{0, 28}}, kShapes).store), 610'856'096) << name;
    EXPECT_EQ(find_vae(all["vae"]).facts(all["vae"]).scale, 0.13025);
    EXPECT_EQ(all["transformer"]["sample_size"].get<int>() * 8, pixart().defaults(all["transformer"]).height);
  }
}

}  // namespace
}  // namespace atelier::models
