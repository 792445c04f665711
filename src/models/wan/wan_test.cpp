// Wan as the engine meets it: facts and traits, names of both spellings, configs of files, latents that
// are given, presets.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "models/family.h"
#include "models/presets.h"
#include "models/wan/names.h"
#include "nn/testing.h"

namespace atelier::models {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const Family& family_of(const char* pipeline = "WanPipeline") {
  return *find_family(pipeline);
}

Json small_wan() {
  return {{"num_attention_heads", 3}, {"attention_head_dim", 12},
          {"in_channels", 16},        {"out_channels", 16},
          {"num_layers", 3},          {"ffn_dim", 40},
          {"text_dim", 10},           {"freq_dim", 16}};
}

Json seeing_wan() {
  Json j = small_wan();
  j["in_channels"] = 36, j["image_dim"] = 14, j["added_kv_proj_dim"] = 36;
  return j;
}

Json steered_wan() {
  Json j = small_wan();
  j["vace_layers"] = {0, 2}, j["vace_in_channels"] = 96;
  return j;
}

const at::TensorOptions kShapes = at::TensorOptions(at::kFloat).device(at::kMeta);

struct Built {
  std::unique_ptr<weights::WeightStore> store = weights::WeightStore::dummy(1);
  nn::SingleRank one;
  std::unique_ptr<nn::Model> model;
  Built(const Json& config, std::vector<Range> blocks, at::TensorOptions options = kShapes)
      : model(family_of().build(config, one.builder(*store, options), blocks)) {}
  std::set<std::string> names() const {
    std::set<std::string> all;
    for (const auto& a : store->manifest()) all.insert(a.name);
    return all;
  }
  int64_t elements() const {
    int64_t n = 0;
    for (const auto& a : store->manifest())
      n += weights::is_added(a.name)
               ? 0
               : std::accumulate(a.shape.begin(), a.shape.end(), int64_t{1}, std::multiplies<>());
    return n;
  }
};

TEST(Wan, BuildsOnlyItsBlocksAndItsEnds) {
  const auto whole = Built(steered_wan(), {{0, 3}}).names(), middle = Built(steered_wan(), {{1, 1}}).names();
  EXPECT_TRUE(whole.contains("patch_embedding.weight") && whole.contains("proj_out.weight"));
  EXPECT_TRUE(whole.contains("vace_blocks.0.control_in.weight") &&
              whole.contains("vace_blocks.1.self.qkv.weight"));
  EXPECT_FALSE(whole.contains("vace_blocks.1.control_in.weight"));
  EXPECT_FALSE(middle.contains("patch_embedding.weight") || middle.contains("proj_out.weight"));
  EXPECT_FALSE(middle.contains("vace_blocks.0.self.qkv.weight") ||
               middle.contains("vace_patch_embedding.weight"));
  auto together = Built(steered_wan(), {{0, 1}, {2, 1}}).names();
  together.merge(Built(steered_wan(), {{1, 1}}).names());
  EXPECT_EQ(together, whole);
}

// Of text to video alone an adapter may add channels.
TEST(Wan, ChannelsThatAnAdapterAddsAreZerosWithoutOne) {
  EXPECT_TRUE(Built(small_wan(), {{0, 3}}).names().contains("patch_embedding.added.weight"));
  for (const Json& config : {seeing_wan(), steered_wan()})
    EXPECT_FALSE(Built(config, {{0, 3}}).names().contains("patch_embedding.added.weight"));
  auto added = at::ones({36, 16, 1, 2, 2});
  weights::WeightStore::dummy(1)->read_into(added, "patch_embedding.added.weight", added.sizes(), {}, {});
  EXPECT_EQ(added.abs().max().item<double>(), 0);
}

TEST(Wan, FactsCountWhatBlocksCost) {
  EXPECT_EQ(family_of().facts(small_wan()).heads, 3);
  EXPECT_EQ(family_of().facts(small_wan()).blocks, 3);
  EXPECT_TRUE(family_of().facts(small_wan()).cost.empty());
  EXPECT_EQ(family_of("WanVACEPipeline").facts(steered_wan()).cost, (std::vector<double>{2, 1, 2}));
}

TEST(Wan, GridsHaveFramesOfLatents) {
  const auto g = family_of().grid(small_wan(), 8, 48, 64, 3);
  EXPECT_EQ(g.tokens(), 3 * 3 * 4);
  EXPECT_EQ(g.latent(2), (std::vector<int64_t>{2, 16, 3, 6, 8}));
  EXPECT_TRUE(has(error_of(Kind::kUsage, [] { family_of().grid(small_wan(), 8, 50, 64, 3); }), "try 64x48"));
  EXPECT_TRUE(
      has(error_of(Kind::kUsage, [] { family_of().grid(small_wan(), 8, 48, 64, 2000); }), "1 to 1024"));
  const auto x = nn::random({2, 5, 3, 4, 6});
  EXPECT_EQ(distance(family_of().unpack(family_of().pack(x), {.frames = 3, .rows = 2, .cols = 3}), x), 0);
  const auto at = family_of().coordinates(small_wan(), {.frames = 2, .rows = 2, .cols = 3}, 0, 12);
  EXPECT_TRUE(at[7].equal(at::tensor({1, 0, 1}, at::TensorOptions(at::kLong))));
}

TEST(Wan, TraitsFollowIndexAndConfig) {
  const auto traits = [](const Json& index, const Json& config) { return family_of().video(index, config); };
  EXPECT_EQ(traits(Json::object(), small_wan()).image, Shown::kNever);
  EXPECT_EQ(traits({{"expand_timesteps", true}}, small_wan()).image, Shown::kMay);
  EXPECT_EQ(traits(Json::object(), seeing_wan()).image, Shown::kMust);
  EXPECT_EQ(traits(Json::object(), seeing_wan()).last_image, Shown::kNever);
  Json both = seeing_wan();
  both["pos_embed_seq_len"] = 10;
  EXPECT_EQ(traits(Json::object(), both).last_image, Shown::kMust);
  Json blind = small_wan();
  blind["in_channels"] = 36;
  EXPECT_EQ(traits(Json::object(), blind).last_image, Shown::kMay);
  EXPECT_EQ(traits(Json::object(), steered_wan()).control_video, Shown::kMay);
  const Json experts = {{"boundary_ratio", 0.9}, {"transformer_2", {"diffusers", "WanTransformer3DModel"}}};
  EXPECT_TRUE(traits(experts, small_wan()).has_second_guidance);
  for (const Json& none : {Json(), Json::array({Json(), Json()})}) {
    const auto lonely = [&] { traits({{"boundary_ratio", 0.9}, {"transformer_2", none}}, small_wan()); };
    EXPECT_TRUE(has(error_of(Kind::kCheckpoint, lonely), "the second expert is missing"));
  }
}

TEST(Wan, ConfigsThatCannotBeAreNamed) {
  const auto refused = [](const char* key, const Json& value) {
    Json config = steered_wan();
    config[key] = value;
    return error_of(Kind::kCheckpoint, [&] { family_of().facts(config); });
  };
  EXPECT_TRUE(has(refused("patch_size", {2, 2, 2}), "patch_size must be [1, 2, 2]"));
  EXPECT_TRUE(
      has(refused("qk_norm", "layer_norm"), "qk_norm must be rms_norm_across_heads, found layer_norm"));
  EXPECT_TRUE(has(refused("cross_attn_norm", false), "cross_attn_norm"));
  EXPECT_TRUE(has(refused("eps", 1e-5), "eps must be 1e-6"));
  EXPECT_TRUE(has(refused("in_channels", 20), "in_channels must be out_channels (16), or 36"));
  EXPECT_TRUE(has(refused("image_dim", 14), "added_kv_proj_dim must be given together"));
  EXPECT_TRUE(has(refused("vace_layers", {1, 2}), "vace_layers must rise from 0"));
  EXPECT_TRUE(has(refused("vace_layers", {0, 3}), "below num_layers, 3"));
  EXPECT_TRUE(has(refused("attention_head_dim", 13), "even attention_head_dim"));
}

// Every tensor of the model has its names in either spelling, and no two share one.
TEST(Wan, NamesAreABijection) {
  for (const Json& config : {small_wan(), seeing_wan(), steered_wan()}) {
    for (const auto& rules : {names_wan_diffusers(), names_wan_original()}) {
      std::set<std::string> stored;
      size_t parts = 0;
      for (const auto& name : Built(config, {{0, 3}}).names()) {
        const auto rule = std::find_if(rules.begin(), rules.end(), [&](const auto& r) {
          return weights::match(r.canonical, name).has_value();
        });
        ASSERT_NE(rule, rules.end()) << name;
        for (const auto& part : rule->parts) {
          stored.insert(weights::fill(part.name, *weights::match(rule->canonical, name)));
          ++parts;
        }
      }
      EXPECT_EQ(stored.size(), parts);
    }
  }
}

TEST(Wan, ConfigsOfFilesComeFromTheirTensors) {
  const auto zeros = [](at::IntArrayRef sizes) { return at::zeros(sizes); };
  std::map<std::string, at::Tensor> file{
      {"model.diffusion_model.head.modulation", zeros({1, 2, 24})},
      {"model.diffusion_model.head.head.weight", zeros({64, 24})},
      {"model.diffusion_model.blocks.0.modulation", zeros({1, 6, 24})},
      {"model.diffusion_model.blocks.1.modulation", zeros({1, 6, 24})},
      {"model.diffusion_model.blocks.0.ffn.0.weight", zeros({50, 24})},
      {"model.diffusion_model.text_embedding.0.weight", zeros({24, 9})},
      {"model.diffusion_model.time_embedding.0.weight", zeros({24, 32})},
      {"model.diffusion_model.patch_embedding.weight", zeros({24, 36, 1, 2, 2})},
      {"model.diffusion_model.img_emb.proj.1.weight", zeros({7, 7})}};
  const Json like = {{"attention_head_dim", 12}};
  const auto c = config_of_wan_file(nn::PlantedStore(file), like);
  EXPECT_EQ(c["num_attention_heads"], 2);
  EXPECT_EQ(c["num_layers"], 2);
  EXPECT_EQ(c["ffn_dim"], 50);
  EXPECT_EQ(c["in_channels"], 36);
  EXPECT_EQ(c["out_channels"], 16);
  EXPECT_EQ(c["image_dim"], 7);
  EXPECT_TRUE(c["pos_embed_seq_len"].is_null());
  const std::map<std::string, at::Tensor> diffusers{
      {"scale_shift_table", zeros({1, 2, 24})},
      {"proj_out.weight", zeros({64, 24})},
      {"blocks.0.scale_shift_table", zeros({1, 6, 24})},
      {"blocks.1.scale_shift_table", zeros({1, 6, 24})},
      {"blocks.0.ffn.net.0.proj.weight", zeros({50, 24})},
      {"condition_embedder.text_embedder.linear_1.weight", zeros({24, 9})},
      {"condition_embedder.time_embedder.linear_1.weight", zeros({24, 32})},
      {"patch_embedding.weight", zeros({24, 36, 1, 2, 2})},
      {"condition_embedder.image_embedder.ff.net.0.proj.weight", zeros({7, 7})}};
  EXPECT_EQ(config_of_wan_file(nn::PlantedStore(diffusers), like), c);
  const auto refused = [&](const Json& config) {
    return error_of(Kind::kCheckpoint, [&] { config_of_wan_file(nn::PlantedStore(file), config); });
  };
  EXPECT_TRUE(has(refused({{"attention_head_dim", 128}}), "24 channels are no multiple of heads of 128"));
  file["model.diffusion_model.control_adapter.conv.weight"] = zeros({1});
  EXPECT_TRUE(has(refused(like), "a camera control model"));
  EXPECT_TRUE(
      has(error_of(Kind::kCheckpoint, [] { config_of_wan_file(nn::PlantedStore({}), Json::object()); }),
          "no Wan transformer"));
}

// An encoder that gives each latent frame the mean of its first pixel frame.
at::Tensor means(const at::Tensor& video) {
  const auto first = at::arange(0, video.size(2), 4);
  return video.index_select(2, first).mean(at::IntArrayRef{1, 3, 4}, true).expand({-1, 16, -1, 6, 8});
}

TEST(Wan, FramesThatAreGivenComeWithTheirMask) {
  ShownPictures shown{.image = at::full({1, 3, 48, 64}, 0.5), .frames = 9, .height = 48, .width = 64};
  const auto given = [&](const Json& index) {
    return family_of().given(index, small_wan(), {}, shown, means);
  };
  const auto first = given(Json::object()).channels;
  ASSERT_EQ(first.sizes(), (at::IntArrayRef{1, 20, 3, 6, 8}));
  const auto mask = [](const at::Tensor& t, int64_t channel, int64_t frame) {
    return t[0][channel][frame][2][3].item<double>();
  };
  for (int c = 0; c < 4; ++c) {
    EXPECT_EQ(mask(first, c, 0), 1);
    EXPECT_EQ(mask(first, c, 2), 0);
  }
  EXPECT_EQ(mask(first, 4, 0), 0.5);
  EXPECT_EQ(mask(first, 4, 1), 0);
  shown.last_image = at::full({1, 3, 48, 64}, -1.0);
  const auto both = given(Json::object()).channels;
  EXPECT_EQ(mask(both, 3, 2), 1);
  EXPECT_EQ(mask(both, 2, 2), 0);
  const auto known = given({{"expand_timesteps", true}});
  EXPECT_FALSE(known.channels.defined());
  EXPECT_EQ(known.known.size(2), 1);
}

TEST(Wan, ReferencesComeBeforeTheControlVideo) {
  const auto& vace = family_of("WanVACEPipeline");
  const auto grid = vace.grid(steered_wan(), 8, 48, 64, 5);
  ShownPictures shown{.references = at::ones({1, 2, 3, 48, 64}), .frames = 9, .height = 48, .width = 64};
  const auto made = vace.given(Json::object(), steered_wan(), grid, shown, means);
  ASSERT_EQ(made.control.sizes(), (at::IntArrayRef{1, 96, 5, 6, 8}));
  EXPECT_EQ(made.control[0][0][1][0][0].item<double>(), 1);
  EXPECT_EQ(made.control[0][16][1][0][0].item<double>(), 0) << "no second half for a picture";
  EXPECT_EQ(made.control[0][40][1][0][0].item<double>(), 0) << "its mask";
  EXPECT_EQ(made.control[0][40][2][0][0].item<double>(), 1) << "all of the video is drawn anew";
  EXPECT_TRUE(made.control_scales.equal(at::ones({2})));
  shown.control_scales = {1, 2, 3};
  const auto odd = [&] { vace.given(Json::object(), steered_wan(), grid, shown, means); };
  EXPECT_TRUE(
      has(error_of(Kind::kUsage, odd), "conditioning_scale has 3 numbers; this model takes one, or 2"));
}

TEST(Wan, PresetsHaveThePublishedNumberOfParameters) {
  const std::pair<const char*, int64_t> published[] = {
      {"Wan2.1-T2V-1.3B-Diffusers", 1'418'996'800},
      {"wan2.1-t2v-14b", 14'288'491'584},
      {"Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", 16'394'878'784},
      {"wan2.2-ti2v-5b", 4'999'787'712}};
  for (const auto& [name, parameters] : published) {
    const Json all = preset(name);
    const auto blocks = all["transformer"]["num_layers"].get<int64_t>();
    EXPECT_EQ(Built(all["transformer"], {{0, blocks}}).elements(), parameters) << name;
  }
}

}  // namespace
}  // namespace atelier::models
