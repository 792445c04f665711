// FLUX and the autoencoder as the engine meets them: facts, sizes, which blocks are built, slices, presets.
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

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

using nn::error_of;
using nn::has;

const Family& flux() {
  return *find_family("FluxPipeline");
}

Json small_flux() {
  return {{"_class_name", "FluxTransformer2DModel"},
          {"num_attention_heads", 5},
          {"attention_head_dim", 16},
          {"in_channels", 16},
          {"num_layers", 2},
          {"num_single_layers", 3},
          {"joint_attention_dim", 24},
          {"pooled_projection_dim", 12},
          {"axes_dims_rope", {4, 6, 6}},
          {"guidance_embeds", true}};
}

// Counts the elements that it hands out, and notes which blocks are complete.
struct CountingMemory : nn::Resident {
  int64_t resident = 0, in_blocks = 0;
  std::vector<int> finished;
  nn::Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override {
    const int64_t n = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
    if (block != kTables) (block == kResident ? resident : in_blocks) += n;
    return Resident::take(block, sizes, options);
  }
  void finish(int block) override {
    if (block != kTables) finished.push_back(block);
  }
};

struct Built {
  std::unique_ptr<weights::WeightStore> store = weights::WeightStore::dummy(1);
  CountingMemory memory;
  nn::SingleRank seams;
  std::unique_ptr<nn::Model> model;
  Built(const Json& config, std::vector<Range> blocks, int cut = 0, int cuts = 1) : seams(cut, cuts) {
    const nn::Builder b(*store, seams.seams, memory, at::TensorOptions(at::kFloat).device(at::kMeta));
    model = flux().build(config, b, blocks);
  }
  std::set<std::string> names() const {
    std::set<std::string> all;
    for (const auto& a : store->manifest()) all.insert(a.name);
    return all;
  }
};

bool any_has(const std::set<std::string>& names, std::string_view part) {
  return std::any_of(names.begin(), names.end(), [&](const auto& n) { return has(n, part); });
}

TEST(Flux, BuildsOnlyItsBlocksAndItsEnds) {
  const Built first(small_flux(), {{0, 2}}), middle(small_flux(), {{2, 1}}), last(small_flux(), {{3, 2}});
  EXPECT_EQ(first.memory.finished, (std::vector<int>{0, 1}));
  EXPECT_EQ(middle.memory.finished, (std::vector<int>{2}));
  EXPECT_EQ(last.memory.finished, (std::vector<int>{3, 4}));
  EXPECT_TRUE(any_has(first.names(), "x_embedder") && any_has(first.names(), "double.1."));
  EXPECT_FALSE(any_has(first.names(), "single.") || any_has(first.names(), "proj_out"));
  EXPECT_FALSE(any_has(middle.names(), "double.") || any_has(middle.names(), "x_embedder") ||
               any_has(middle.names(), "proj_out"));
  EXPECT_TRUE(any_has(middle.names(), "single.0.") && !any_has(middle.names(), "single.1."));
  EXPECT_TRUE(any_has(last.names(), "proj_out") && any_has(last.names(), "norm_out.linear"));
  EXPECT_EQ(last.model->blocks(), 5);
}

TEST(Flux, RangesTogetherReadEveryTensorOfTheWhole) {
  const Built whole(small_flux(), {{0, 5}}), outer(small_flux(), {{0, 1}, {4, 1}}),
      inner(small_flux(), {{1, 3}});
  auto together = outer.names();
  together.merge(inner.names());
  EXPECT_EQ(together, whole.names());
  EXPECT_EQ(outer.memory.in_blocks + inner.memory.in_blocks, whole.memory.in_blocks);
}

TEST(Flux, FeatureCutsShareTheLargeWeightsAndRepeatTheSmall) {
  const Built whole(small_flux(), {{0, 5}});
  for (const int cuts : {2, 3, 5}) {
    int64_t together = 0;
    for (int cut = 0; cut < cuts; ++cut) {
      const Built part(small_flux(), {{0, 5}}, cut, cuts);
      EXPECT_EQ(part.names(), whole.names());
      EXPECT_EQ(part.memory.resident, whole.memory.resident);
      together += part.memory.in_blocks;
    }
    // everywhere: the norms of heads, and the biases that follow a sum
    const int64_t width = 80, head = 16, doubles = 2, singles = 3;
    const int64_t repeated = doubles * 2 * (2 * head + 2 * width) + singles * (2 * head + width);
    EXPECT_EQ(together, whole.memory.in_blocks + (cuts - 1) * repeated) << cuts;
  }
}

TEST(Flux, FactsDescribeTheConfig) {
  const ModelFacts f = flux().facts(small_flux());
  EXPECT_EQ(f.blocks, 5);
  EXPECT_EQ(f.heads, 5);
  EXPECT_FALSE(f.has_skips || f.has_convolution_mixer);
  Json schnell = small_flux();
  schnell["guidance_embeds"] = false;
  EXPECT_EQ(flux().defaults(schnell).steps, 4);
  EXPECT_EQ(flux().defaults(schnell).max_sequence_length, 256);
  EXPECT_EQ(flux().defaults(small_flux()).steps, 28);
}

TEST(Flux, SizesThatItCannotDrawAreRefusedWithOnesThatItCan) {
  const Grid g = flux().grid(small_flux(), 8, 64, 96, 1);
  EXPECT_EQ(g.rows, 4);
  EXPECT_EQ(g.cols, 6);
  EXPECT_EQ(g.latent_rows, 8);
  EXPECT_EQ(g.latent_cols, 12);
  EXPECT_EQ(g.latent_channels, 4);
  const auto odd = error_of(Kind::kUsage, [] { flux().grid(small_flux(), 8, 70, 1000, 1); });
  EXPECT_TRUE(has(odd, "1000x70") && has(odd, "multiples of 16") && has(odd, "1008x64")) << odd;
  const auto tiny = error_of(Kind::kUsage, [] { flux().grid(small_flux(), 8, 0, -16, 1); });
  EXPECT_TRUE(has(tiny, "try 16x16")) << tiny;
}

TEST(Flux, PackingAndCoordinatesAgree) {
  const Grid g = flux().grid(small_flux(), 8, 64, 96, 1);
  const auto latents = nn::random({2, 4, 8, 12});
  const auto tokens = flux().pack(latents);
  EXPECT_EQ(tokens.sizes(), (at::IntArrayRef{24, 2, 16}));
  EXPECT_TRUE(at::equal(flux().unpack(tokens, g), latents));
  const auto at = flux().coordinates(small_flux(), g, flux().latent_stream(), 24);
  EXPECT_EQ(at[23][1].item<int64_t>(), 3);
  EXPECT_EQ(at[23][2].item<int64_t>(), 5);
  const auto text = flux().coordinates(small_flux(), g, 0, 7);
  EXPECT_EQ(text.size(0), 7);
  EXPECT_EQ(text.abs().max().item<int64_t>(), 0);
}

// 508.8687... divided by 1000 and multiplied again is the next float below.
TEST(Flux, TimesAreRoundedAsByItsPipeline) {
  const auto store = weights::WeightStore::dummy(1);
  nn::SingleRank whole;
  const std::vector<Range> blocks{{0, 5}};
  const auto model = flux().build(small_flux(), whole.builder(*store, at::TensorOptions(at::kFloat)), blocks);
  const nn::Conditioning given{.streams = {at::ones({3, 1, 24})}, .whole = {{"pooled", at::ones({1, 12})}}};
  const auto tables = [&](float time) { return model->begin({}, given, std::span(&time, 1)).tables; };
  EXPECT_TRUE(at::equal(tables(0x1.fcde64p+8f), tables(0x1.fcde62p+8f)));
  EXPECT_FALSE(at::equal(tables(0x1.fcde64p+8f), tables(0x1.fcde60p+8f)));
}

TEST(Flux, ConfigsThatCannotBeAreNamed) {
  const auto refused = [](const char* key, const Json& value) {
    Json config = small_flux();
    config[key] = value;
    return error_of(Kind::kCheckpoint, [&] { flux().facts(config); });
  };
  EXPECT_TRUE(has(refused("axes_dims_rope", {4, 6, 8}), "axes_dims_rope"))
      << refused("axes_dims_rope", {4, 6, 8});
  EXPECT_TRUE(has(refused("axes_dims_rope", {8, 8}), "axes_dims_rope"));
  EXPECT_TRUE(has(refused("axes_dims_rope", {5, 5, 6}), "axes_dims_rope")) << "an odd axis has half a pair";
  EXPECT_TRUE(has(refused("axes_dims_rope", {-4, 10, 10}), "axes_dims_rope"));
  EXPECT_TRUE(has(refused("axes_dims_rope", "16"), "axes_dims_rope must be a list"));
  EXPECT_TRUE(has(refused("num_layers", 0), "num_layers must be a positive number"));
  EXPECT_TRUE(has(refused("num_layers", 1000000000), "num_layers must be a positive number up to 1000"));
  EXPECT_TRUE(has(refused("num_layers", 1.5), "num_layers must be a whole number"))
      << refused("num_layers", 1.5);
  EXPECT_TRUE(has(refused("in_channels", 6), "in_channels"));
  EXPECT_TRUE(has(refused("patch_size", 2), "patch_size"));
  EXPECT_TRUE(has(refused("guidance_embeds", "no"), "guidance_embeds must be true or false"));
  const auto list = error_of(Kind::kCheckpoint, [] { flux().facts(Json::array({1, 2})); });
  EXPECT_TRUE(has(list, "transformer/config.json")) << list;
}

int64_t elements(const weights::WeightStore& store) {
  int64_t n = 0;
  for (const auto& a : store.manifest())
    n += std::accumulate(a.shape.begin(), a.shape.end(), int64_t{1}, std::multiplies<>());
  return n;
}

// The parameter counts of the published checkpoints.
TEST(Presets, HaveThePublishedNumberOfParameters) {
  const Json dev = preset("FLUX.1-dev"), schnell = preset("black-forest-labs/FLUX.1-schnell");
  EXPECT_EQ(elements(*Built(dev["transformer"], {{0, 57}}).store), 11'901'408'320);
  EXPECT_EQ(elements(*Built(schnell["transformer"], {{0, 57}}).store), 11'891'178'560);
  const auto count = [](auto&& family, const Json& config) {
    nn::SingleRank one;
    const auto store = weights::WeightStore::dummy(1);
    family.build(config, one.builder(*store, at::TensorOptions(at::kFloat).device(at::kMeta)));
    return elements(*store);
  };
  EXPECT_EQ(count(find_vae(dev["vae"]), dev["vae"]), 83'819'683);
  EXPECT_EQ(count(find_encoder(dev["text_encoder"]), dev["text_encoder"]), 123'060'480);
  EXPECT_EQ(count(find_encoder(dev["text_encoder_2"]), dev["text_encoder_2"]), 4'762'310'656);
  const auto unknown = error_of(Kind::kUsage, [] { preset("FLUX.2"); });
  EXPECT_TRUE(has(unknown, "FLUX.1-schnell")) << unknown;
}

Json small_vae() {
  return {{"_class_name", "AutoencoderKL"}, {"block_out_channels", {4, 8}}, {"layers_per_block", 1},
          {"norm_num_groups", 2},           {"latent_channels", 3},         {"sample_size", 16},
          {"scaling_factor", 0.5},          {"shift_factor", 0.25}};
}

struct BuiltVae {
  std::unique_ptr<weights::WeightStore> store = weights::WeightStore::dummy(2);
  nn::SingleRank one;
  std::unique_ptr<Vae> vae =
      find_vae(small_vae()).build(small_vae(), one.builder(*store, at::TensorOptions(at::kDouble)));
};

TEST(Autoencoder, FactsComeFromTheConfig) {
  const VaeFacts f = find_vae(small_vae()).facts(small_vae());
  EXPECT_EQ(f.latent_channels, 3);
  EXPECT_EQ(f.spatial, 2);
  EXPECT_EQ(f.scale, 0.5);
  EXPECT_EQ(f.shift, 0.25);
}

TEST(Autoencoder, HalvesAndDoublesWithUnequalSides) {
  const BuiltVae b;
  const auto moments = b.vae->encode(image_call(6, 9, 1, 0), nn::random({2, 3, 12, 18}));
  EXPECT_EQ(moments.sizes(), (at::IntArrayRef{2, 6, 6, 9}));
  EXPECT_EQ(b.vae->decode(image_call(6, 9, 1, 0), moments.narrow(1, 0, 3)).sizes(),
            (at::IntArrayRef{2, 3, 12, 18}));
}

TEST(Autoencoder, OneTileIsTheWholePictureAndMoreKeepTheSize) {
  const BuiltVae b;
  const auto z = nn::random({1, 3, 8, 8}), wide = nn::random({1, 3, 11, 19});
  EXPECT_TRUE(
      at::equal(b.vae->decode_tiled(z, b.vae->facts().tiles), b.vae->decode(image_call(8, 8, 1, 0), z)));
  const auto tiles = b.vae->decode_tiled(wide, b.vae->facts().tiles);
  EXPECT_EQ(tiles.sizes(), (at::IntArrayRef{1, 3, 22, 38}));
  // no tile but the first reaches the pixels left and above of the first overlap
  const auto corner = b.vae->decode(image_call(8, 8, 1, 0), wide.narrow(2, 0, 8).narrow(3, 0, 8));
  EXPECT_TRUE(at::equal(tiles.narrow(2, 0, 12).narrow(3, 0, 12), corner.narrow(2, 0, 12).narrow(3, 0, 12)));
  EXPECT_EQ(b.vae->encode_tiled(nn::random({1, 3, 22, 38}), b.vae->facts().tiles).sizes(),
            (at::IntArrayRef{1, 6, 11, 19}));
}

TEST(Autoencoder, ConfigsThatCannotBeAreNamed) {
  const auto refused = [](const Json& config) {
    return error_of(Kind::kCheckpoint, [&] { find_vae(config).facts(config); });
  };
  Json groups = small_vae(), act = small_vae(), empty = small_vae();
  groups["norm_num_groups"] = 3, act["act_fn"] = "relu", empty["block_out_channels"] = Json::array();
  EXPECT_TRUE(has(refused(groups), "4 channels do not divide into 3 groups")) << refused(groups);
  EXPECT_TRUE(has(refused(act), "act_fn")) << refused(act);
  EXPECT_TRUE(has(refused(empty), "block_out_channels")) << refused(empty);
  Json scale = small_vae(), deviation = small_vae();
  scale["scaling_factor"] = 0;
  EXPECT_TRUE(has(refused(scale), "scaling_factor must be above 0, found 0")) << refused(scale);
  const auto channels = deviation["latent_channels"].get<size_t>();
  deviation["latents_mean"] = std::vector<double>(channels, 0.5);
  deviation["latents_std"] = std::vector<double>(channels, 0);
  EXPECT_TRUE(has(refused(deviation), "latents_std is zero")) << refused(deviation);
  EXPECT_TRUE(has(refused(Json::object()), "_class_name")) << refused(Json::object());
  EXPECT_TRUE(has(refused(Json::array()), "vae/config.json")) << refused(Json::array());
  EXPECT_TRUE(has(refused({{"_class_name", 7}}), "vae/config.json"));
  EXPECT_TRUE(has(refused({{"_class_name", "AutoencoderDC"}}), "AutoencoderDC"));
}

TEST(Grids, HaveAnAxisForTimeOnlyWithFrames) {
  Grid g{.frames = 3, .rows = 4, .cols = 5, .latent_channels = 16, .latent_rows = 8, .latent_cols = 10};
  EXPECT_EQ(g.tokens(), 60);
  EXPECT_EQ(g.latent(2), (std::vector<int64_t>{2, 16, 8, 10}));
  g.latent_frames = 3;
  EXPECT_EQ(g.latent(2), (std::vector<int64_t>{2, 16, 3, 8, 10}));
}

TEST(Registry, KnowsPipelinesAndDenoisersByTheirClass) {
  EXPECT_EQ(find_family("FluxTransformer2DModel"), find_family("FluxPipeline"));
  EXPECT_EQ(find_family("NoSuchPipeline"), nullptr);
  EXPECT_FALSE(families().empty());
}

}  // namespace
}  // namespace atelier::models
