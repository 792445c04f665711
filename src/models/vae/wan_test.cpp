// Wan's autoencoders: what the recorded folders do not show.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "models/vae.h"
#include "nn/testing.h"
#include "weights/names.h"

namespace atelier::models {
namespace {

using nn::error_of;
using nn::has;

Json wan21() {
  return {{"_class_name", "AutoencoderKLWan"},
          {"base_dim", 4},
          {"z_dim", 2},
          {"dim_mult", {1, 2, 2}},
          {"num_res_blocks", 1},
          {"temperal_downsample", {true, false}},
          {"scale_factor_spatial", 4},
          {"latents_mean", {0.5, -0.5}},
          {"latents_std", {2.0, 3.0}}};
}

Json wan22() {
  auto config = wan21();
  config.update({{"is_residual", true},
                 {"patch_size", 2},
                 {"in_channels", 12},
                 {"out_channels", 12},
                 {"decoder_base_dim", 6},
                 {"scale_factor_spatial", 8}});
  return config;
}

struct BuiltWan {
  explicit BuiltWan(const Json& config)
      : vae(find_vae(config).build(config, one.builder(*store, at::TensorOptions(at::kDouble)))) {}
  nn::SingleRank one;
  std::unique_ptr<weights::WeightStore> store = weights::WeightStore::dummy(3);
  std::unique_ptr<Vae> vae;
};

TEST(WanAutoencoder, FactsComeFromTheConfig) {
  const auto f = find_vae(wan21()).facts(wan21()), g = find_vae(wan22()).facts(wan22());
  EXPECT_EQ(f.latent_channels, 2);
  EXPECT_EQ(f.spatial, 4);
  EXPECT_EQ(g.spatial, 8);
  EXPECT_EQ(f.temporal, 2);
  EXPECT_TRUE(f.has_frames && f.is_clamped);
  EXPECT_EQ(f.frames(3), 5);
  EXPECT_EQ(f.latent_frames(5), 3);
  EXPECT_EQ(f.deviation, (std::vector<double>{2, 3}));
}

TEST(WanAutoencoder, MakesEveryFrameOfTheOnesBeforeIt) {
  for (const auto& config : {wan21(), wan22()}) {
    const BuiltWan b(config);
    const auto call = image_call(3, 2, 1, 0);
    const int64_t s = b.vae->facts().spatial;
    const auto z = nn::random({2, 2, 4, 3, 2});
    const auto all = b.vae->decode(call, z);
    EXPECT_EQ(all.sizes(), (at::IntArrayRef{2, 3, 7, 3 * s, 2 * s}));
    EXPECT_LT(nn::distance(b.vae->decode(call, z.narrow(2, 0, 2)), all.narrow(2, 0, 3)), 1e-12);
    EXPECT_LT(nn::distance(b.vae->decode(call, z.narrow(0, 1, 1)), all.narrow(0, 1, 1)), 1e-12);
    const auto moments =
        b.vae->encode(call, all);  // 7 frames: a chunk of one, one of four, two that do not count
    EXPECT_EQ(moments.sizes(), (at::IntArrayRef{2, 4, 3, 3, 2}));
    EXPECT_LT(nn::distance(b.vae->encode(call, all.narrow(2, 0, 1)), moments.narrow(2, 0, 1)), 1e-12);
  }
}

TEST(WanAutoencoder, OneTileIsTheWholeAndGapsAreRefused) {
  const BuiltWan b(wan22());
  const auto z = nn::random({1, 2, 2, 3, 4});
  const auto whole = b.vae->decode(image_call(3, 4, 1, 0), z);
  EXPECT_TRUE(at::equal(b.vae->decode_tiled(z, b.vae->facts().tiles), whole));
  EXPECT_EQ(b.vae->decode_tiled(z, {16, 8}).sizes(), whole.sizes());
  const auto refused = [&](const Tiles& t) {
    return error_of(Kind::kUsage, [&] { b.vae->decode_tiled(z, t); });
  };
  EXPECT_TRUE(has(refused({16, 4}), "too small"));
  EXPECT_TRUE(has(refused({16, 32}), "gaps"));
}

// Of each tensor the original name, which no other has.
TEST(WanAutoencoder, OriginalNamesAreABijection) {
  for (const auto& config : {wan21(), wan22()}) {
    const BuiltWan b(config);
    const auto rules = find_vae(config).names(config);
    std::set<std::string> originals;
    for (const auto& entry : b.store->manifest()) {
      int found = 0;
      for (const auto& rule : rules) {
        const auto match = weights::match(rule.canonical, entry.name);
        if (!match) continue;
        ++found;
        EXPECT_TRUE(originals.insert(weights::fill(rule.parts[0].name, *match)).second) << entry.name;
      }
      EXPECT_EQ(found, 1) << entry.name;
    }
    EXPECT_TRUE(originals.contains("conv1.weight") && originals.contains("decoder.middle.1.to_qkv.bias"));
    EXPECT_EQ(originals.contains("decoder.upsamples.2.time_conv.weight"), false);
    EXPECT_TRUE(originals.contains(config.contains("patch_size")
                                       ? "encoder.downsamples.0.downsamples.1.time_conv.weight"
                                       : "encoder.downsamples.1.time_conv.weight"));
  }
}

TEST(WanAutoencoder, ConfigsThatCannotBeAreNamed) {
  const auto refused = [](Json config, const Json& change) {
    config.update(change);
    return error_of(Kind::kCheckpoint, [&] { find_vae(config).facts(config); });
  };
  EXPECT_TRUE(has(refused(wan21(), {{"temperal_downsample", {true}}}), "temperal_downsample one fewer"));
  EXPECT_TRUE(has(refused(wan21(), {{"temperal_downsample", "no"}}), "list of true and false"));
  EXPECT_TRUE(has(refused(wan21(), {{"z_dim", 3}}), "z_dim is 3"));
  EXPECT_TRUE(has(refused(wan21(), {{"latents_std", {0.0, 1.0}}}), "zero"));
  EXPECT_TRUE(has(refused(wan22(), {{"in_channels", 3}}), "in_channels"));
  EXPECT_TRUE(has(refused(wan22(), {{"dim_mult", {1, 3, 7}}}), "dim_mult"));
  EXPECT_TRUE(has(refused(wan21(), {{"dim_mult", {1, 2, 2, 2}}, {"temperal_downsample", {true, true, true}}}),
                  "8-fold"));
}

}  // namespace
}  // namespace atelier::models
