// The UNet: its plan of blocks, what its config may say, its names in both namings, pictures of odd sizes.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "base/testing.h"
#include "models/family.h"
#include "models/presets.h"
#include "models/sdxl/config.h"
#include "models/sdxl/names.h"
#include "models/sdxl/unet.h"
#include "nn/pyramid.h"
#include "nn/testing.h"
#include "weights/save.h"

namespace atelier::models {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

Json small() {
  return {{"block_out_channels", {8, 16, 24}},
          {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
          {"layers_per_block", {1, 2, 1}},
          {"transformer_layers_per_block", {1, 2, 1}},
          {"attention_head_dim", {1, 2, 3}},
          {"cross_attention_dim", 10},
          {"norm_num_groups", 4},
          {"use_linear_projection", true},
          {"addition_embed_type", "text_time"},
          {"addition_time_embed_dim", 4},
          {"projection_class_embeddings_input_dim", 29},
          {"sample_size", 16}};
}

Json with(const std::string& key, const Json& value) {
  Json j = small();
  j[key] = value;
  return j;
}

const Family& sdxl() {
  return *find_family("StableDiffusionXLPipeline");
}

struct Built {
  UNetConfig config;
  std::unique_ptr<weights::WeightStore> store;
  nn::SingleRank whole;
  std::unique_ptr<nn::Model> model;

  explicit Built(const Json& json, at::TensorOptions options = at::TensorOptions(at::kDouble))
      : config(json), store(weights::WeightStore::dummy(3)) {
    const Range all{0, std::ssize(blocks_of(config))};
    model = build_unet(config, whole.builder(*store, options), std::span(&all, 1));
  }

  // One prediction for latents [B, 4, rows, cols].
  at::Tensor operator()(const at::Tensor& latents, const nn::Conditioning& given) const {
    const int64_t rows = latents.size(2), cols = latents.size(3);
    nn::CallContext f;
    f.streams = {{.patches = {rows * cols, 1}, .unit = config.rows_together() * cols}};
    const float times[] = {801};
    auto context = model->begin(f, given, times);
    nn::State s;
    s.context = &context;
    for (int i = 0; i < model->blocks(); ++i) model->begin_block(i, given, context);
    s.row = context.tables[0];
    model->embed(f, s, nn::pixels_of(latents));
    for (int i = 0; i < model->blocks(); ++i) model->block(i, f, s);
    EXPECT_TRUE(s.skips.empty());
    return nn::picture_of(model->head(f, s), rows, cols);
  }
};

nn::Conditioning given(int64_t batch) {
  return {.whole = {{"embeds", nn::random({batch, 7, 10}, at::kDouble, 4)},
                    {"pooled", nn::random({batch, 5}, at::kDouble, 5)},
                    {"time_ids", nn::random({batch, 6}, at::kFloat, 6).abs() * 100}}};
}

nn::Conditioning one_of(const nn::Conditioning& all, int64_t i) {
  nn::Conditioning one;
  for (const auto& [name, t] : all.whole) one.whole[name] = t.narrow(0, i, 1);
  return one;
}

TEST(Unet, IsThePublishedOneInItsPreset) {
  const Json config = preset("stable-diffusion-xl-base-1.0").at("unet");
  const Built base(config, at::TensorOptions(at::kHalf).device(at::kMeta));
  int64_t parameters = 0;
  for (const auto& t : base.store->manifest())
    parameters += std::accumulate(t.shape.begin(), t.shape.end(), int64_t{1}, std::multiplies<>());
  EXPECT_EQ(parameters, 2567463684);
  const auto facts = sdxl().facts(config);
  EXPECT_EQ(facts.blocks, 16);
  EXPECT_EQ(facts.heads, 10);
  EXPECT_TRUE(facts.has_convolution_mixer);
  const auto usual = sdxl().defaults(config);
  EXPECT_EQ(usual.height, 1024);
  EXPECT_EQ(usual.steps, 30);
}

TEST(Unet, ABlockTakesTheSkipsThatWereLeftLast) {
  std::vector<int64_t> in, transformers;
  for (const auto& b : blocks_of(UNetConfig(small()))) {
    in.push_back(b.in), transformers.push_back(b.transformers);
  }
  // Left: 8 | 8 8 | 16 16 16 | 24
  EXPECT_EQ(in, (std::vector<int64_t>{8, 8, 16, 16, 24, 24 + 24, 24 + 16, 24 + 16, 16 + 16, 16 + 8, 16 + 8,
                                      8 + 8}));
  EXPECT_EQ(transformers, (std::vector<int64_t>{0, 2, 2, 1, 1, 1, 1, 2, 2, 2, 0, 0}));
}

TEST(Unet, ConfigsOfOtherKindsAreRefusedByName) {
  const std::pair<const char*, Json> others[] = {
      {"resnet_time_scale_shift", "scale_shift"},
      {"time_cond_proj_dim", 256},
      {"addition_embed_type", "text"},
      {"class_embed_type", "projection"},
      {"num_class_embeds", 10},
      {"only_cross_attention", {false, true, false}},
      {"dual_cross_attention", true},
      {"encoder_hid_dim", 1024},
      {"attention_type", "gated"},
      {"act_fn", "gelu"},
      {"downsample_padding", 0},
      {"freq_shift", 1},
      {"time_embedding_type", "fourier"},
      {"mid_block_type", "UNetMidBlock2DSimpleCrossAttn"},
      {"num_attention_heads", 4},
      {"out_channels", 8},
      {"conv_in_kernel", 4},
      {"layers_per_block", {1, 2}},
      {"attention_head_dim", {1, 0, 3}},
      {"cross_attention_dim", {10, 10, 12}},
      {"block_out_channels", {8, 18, 24}},
      {"transformer_layers_per_block", {1, {2, 1}, 1}},
      {"down_block_types", {"DownBlock2D", "AttnDownBlock2D", "DownBlock2D"}}};
  for (const auto& [key, value] : others) {
    EXPECT_TRUE(has(
        error_of(Kind::kCheckpoint, [&key = key, &value = value] { UNetConfig c(with(key, value)); }), key))
        << key;
  }
  UNetConfig plain(with("only_cross_attention", {false, false, false}));
  EXPECT_EQ(plain.levels.size(), 3u);
}

TEST(Unet, TransformersMayDifferInEveryLayerAndOnTheWayUp) {
  Json j = with("transformer_layers_per_block", {1, {2, 1}, 3});
  j["reverse_transformer_layers_per_block"] = {{4, 5}, {6, 7, 8}, 1};
  const UNetConfig c(j);
  EXPECT_EQ(c.levels[1].down, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(c.levels[1].up, (std::vector<int64_t>{6, 7, 8}));
  EXPECT_EQ(c.levels[2].up, (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(c.levels[0].up, (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(c.middle_blocks, 3);
}

TEST(Unet, NamesOfTheOriginalRepositoryGoThereAndBack) {
  const Built built(small(), at::TensorOptions(at::kFloat).device(at::kMeta));
  for (const std::string prefix : {"", "model.diffusion_model."}) {
    const TemporaryFolder folder;
    weights::SaveOptions options{folder.path()};
    options.dtype = at::kFloat;
    save_checkpoint(*built.store, names_unet_original(built.config, prefix), options);
    const auto file = weights::WeightStore::open(folder.path());
    for (const char* name :
         {"input_blocks.0.0.weight", "input_blocks.2.0.op.bias", "input_blocks.3.1.proj_in.weight",
          "input_blocks.4.1.transformer_blocks.1.attn2.to_v.weight", "middle_block.2.in_layers.2.weight",
          "output_blocks.1.2.conv.weight", "output_blocks.5.0.skip_connection.bias", "label_emb.0.2.bias",
          "time_embed.0.weight", "out.2.weight"}) {
      EXPECT_TRUE(file->has(prefix + name)) << name;
    }
    file->adopt(sdxl().names(small()));
    for (const auto& [name, shape] : built.store->manifest()) {
      auto ours = at::empty(shape), theirs = at::empty(shape);
      built.store->read_into(ours, name, shape, {}, {});
      file->read_into(theirs, name, shape, {}, {});
      EXPECT_TRUE(at::equal(ours, theirs)) << name;
    }
    file->check();
    EXPECT_TRUE(file->unread().empty());
  }
}

TEST(Unet, DrawsPicturesOfAnySizeEachAsIfItWereAlone) {
  const c10::InferenceMode guard;
  for (const bool linear : {true, false}) {
    const Built built(with("use_linear_projection", linear));
    for (const auto& [rows, cols] : {std::pair{8, 12}, {9, 7}, {1, 3}}) {
      const auto x = nn::random({2, 4, rows, cols}, at::kDouble, 7);
      const auto both = built(x, given(2));
      EXPECT_EQ(both.sizes(), x.sizes());
      for (int64_t i = 0; i < 2; ++i) {
        const auto alone = built(x.narrow(0, i, 1), one_of(given(2), i));
        EXPECT_LT(distance(both.narrow(0, i, 1), alone), 1e-12) << rows << " x " << cols;
      }
      EXPECT_GT(distance(both.narrow(0, 0, 1), both.narrow(0, 1, 1)), 1e-2);
    }
  }
}

TEST(Unet, EveryNumberOfItsConditioningMatters) {
  const c10::InferenceMode guard;
  const Built built(small());
  const auto x = nn::random({1, 4, 4, 4}, at::kDouble, 7);
  const auto usual = built(x, given(1));
  for (const char* what : {"embeds", "pooled", "time_ids"}) {
    auto other = given(1);
    other.whole[what] = other.whole[what] * 1.5;
    EXPECT_GT(distance(built(x, other), usual), 1e-4) << what;
  }
}

TEST(Unet, GridsTakeAnyMultipleOfEightPixels) {
  const auto g = sdxl().grid(small(), 8, 72, 104, 1);
  EXPECT_EQ(g.rows, 9);
  EXPECT_EQ(g.cols, 13);
  EXPECT_EQ(g.together, 4 * 13);
  EXPECT_EQ(sdxl().grid(small(), 4, 72, 104, 1).rows, 18);
  const auto message = error_of(Kind::kUsage, [] { sdxl().grid(small(), 8, 100, 64, 1); });
  EXPECT_TRUE(has(message, "multiples of 8") && has(message, "64x104"));
}

TEST(Unet, SizesFarFromTheDesignComeWithANote) {
  auto config = small();
  config["sample_size"] = 32;
  EXPECT_EQ(sdxl().grid(config, 8, 256, 256, 1).note, "");
  const auto note = sdxl().grid(config, 8, 64, 96, 1).note;
  EXPECT_TRUE(has(note, "96x64") && has(note, "256x256")) << note;
}

// What the encoders would give: their own numbers for each text.
struct FakeEncoders : Encoders {
  bool has(std::string_view name) const override { return has_first || name != "text_encoder"; }
  TextStates encode(const TextCall& call, std::span<const std::string> texts) override {
    layers.push_back(call.layer);
    read.push_back(texts[0]);
    const int64_t width = call.encoder == "text_encoder" ? 4 : 6, n = std::ssize(texts);
    const auto seed = std::hash<std::string>()(texts[0]);
    TextStates out;
    out.states = nn::random({n, 7, width}, at::kFloat, seed),
    out.pooled = nn::random({n, 3}, at::kFloat, seed);
    if (width == 6) out.projected = nn::random({n, 5}, at::kFloat, seed + 1);
    return out;
  }
  bool has_first = true;
  std::vector<int> layers;
  std::vector<std::string> read;
};

TEST(Unet, ConditionsOnBothEncodersAndSixNumbers) {
  const Json config = small(), index = Json::object();
  FakeEncoders encoders;
  PromptBatch p{.texts = {{{"a"}, {"b"}, {"a"}}}, .pipeline = index, .denoiser = config};
  p.height = 72, p.width = 104, p.clip_skip = 1;
  p.sizes.crop = {3, 5};
  const auto c = sdxl().condition(encoders, p);
  EXPECT_EQ(encoders.layers, (std::vector<int>{-3, -3}));
  EXPECT_EQ(c.whole.at("embeds").sizes(), (std::vector<int64_t>{1, 7, 10}));
  EXPECT_TRUE(
      at::equal(c.whole.at("time_ids"), at::tensor({72.f, 104.f, 3.f, 5.f, 72.f, 104.f}).view({1, 6})));
  p.is_absent = true;
  EXPECT_EQ(sdxl().condition(encoders, p).whole.at("embeds").abs().sum().item<double>(), 0);
  const Json encodes = {{"force_zeros_for_empty_prompt", false}};
  const PromptBatch empty{.texts = p.texts, .is_absent = true, .pipeline = encodes, .denoiser = config};
  EXPECT_GT(sdxl().condition(encoders, empty).whole.at("pooled").abs().sum().item<double>(), 0);
}

// The refiner, as StableDiffusionXLImg2ImgPipeline conditions it.
TEST(Unet, MayBeToldAScoreInPlaceOfATarget) {
  auto config = small();
  config["projection_class_embeddings_input_dim"] =
      config["projection_class_embeddings_input_dim"].get<int64_t>() -
      config["addition_time_embed_dim"].get<int64_t>();
  const Json index = {{"requires_aesthetics_score", true}};
  FakeEncoders encoders;
  PromptBatch p{.texts = {{{"a"}, {"b"}, {"a"}}}, .pipeline = index, .denoiser = config};
  p.height = 72, p.width = 104;
  const auto told = [&] { return sdxl().condition(encoders, p).whole.at("time_ids"); };
  EXPECT_TRUE(at::equal(told(), at::tensor({72.f, 104.f, 0.f, 0.f, 6.f}).view({1, 5})));
  p.is_negative = true;
  EXPECT_EQ(told()[0][4].item<double>(), 2.5);
  const Json plain = Json::object();
  const PromptBatch other{.texts = p.texts, .pipeline = plain, .denoiser = config};
  EXPECT_TRUE(has(error_of(Kind::kCheckpoint, [&] { sdxl().condition(encoders, other); }),
                  "requires_aesthetics_score"));
}

TEST(Unet, DrawsWithTheSecondEncoderAloneWhichReadsTheFirstText) {
  auto config = small();
  config["cross_attention_dim"] = 6;
  const Json index = Json::object();
  FakeEncoders encoders;
  encoders.has_first = false;
  const PromptBatch p{.texts = {{{"a"}, {"b"}, {"a"}}}, .pipeline = index, .denoiser = config};
  EXPECT_EQ(sdxl().condition(encoders, p).whole.at("embeds").sizes(), (std::vector<int64_t>{1, 7, 6}));
  EXPECT_EQ(encoders.read, (std::vector<std::string>{"a"}));
}

}  // namespace
}  // namespace atelier::models
