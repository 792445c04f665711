// Requests that begin with a picture: files that are read, steps that are left out, masks, and every layout
// as one rank.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"
#include "pipeline/input_pictures.h"
#include "pipeline/request_sampler.h"
#include "pipeline/testing.h"
#include "plan/parallel_config.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

media::Image waves(int width, int height, int phase) {
  media::Image p{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c)
        p.rgb.push_back(static_cast<uint8_t>(x * 3 + y * (c + 2) + phase * (c + 1)));
    }
  }
  return p;
}

// White to the right of the column, black to its left.
media::Image white_from(int column, int width, int height) {
  media::Image p{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i) p.rgb.push_back(i / 3 % width >= column ? 255 : 0);
  return p;
}

// Pictures of 64 x 96 pixels or not.
class Files {
 public:
  std::string operator()(const std::string& name, const media::Image& picture) const {
    write_file_atomically(folder_ / name, media::encode(picture, media::Format::kPng));
    return (folder_ / name).string();
  }
  std::string bytes(const std::string& name, const std::string& all) const {
    write_file_atomically(folder_ / name, all);
    return (folder_ / name).string();
  }

 private:
  TemporaryFolder folder_;
};

std::vector<request::Request> begun_with(const std::string& image, double strength) {
  auto batch = request_for({"A red fox asleep on a mossy stone"}, {5});
  batch[0].num_inference_steps = 4, batch[0].image = image, batch[0].strength = strength;
  return batch;
}

TEST(FirstStep, IsWhereTheReferencePutsIt) {
  request::Request r;
  r.num_inference_steps = 28;
  const auto first = [&](double strength, models::ImageToImage::Cut cut) {
    r.image = "a.png", r.strength = strength;
    return left_out(r, laid_out(r), cut);
  };
  using enum models::ImageToImage::Cut;
  EXPECT_EQ(first(0.6, kFirst), 11);  // 28 - 16.8
  EXPECT_EQ(first(0.6, kSteps), 12);  // 28 - 16
  EXPECT_EQ(first(1, kFirst), 0);
  EXPECT_EQ(first(1, kSteps), 0);
  EXPECT_EQ(first(0.9999, kSteps), 1);
  EXPECT_EQ(first(0.01, kFirst), 27);
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { first(0.01, kSteps); }), "strength 0.01 of 28 steps"));
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { first(0, kFirst); }), "none to run"));
  r.sigmas = "1, 0.7, 0.4, 0.1";
  EXPECT_EQ(first(0.5, kFirst), 2) << "lists decide how many steps there are";
  r.image.reset(), r.strength.reset();
  EXPECT_EQ(left_out(r, 28, kSteps), 0);
}

TEST(Inputs, AreResizedAndMasksCountAtEveryLatent) {
  const Files files;
  const auto image = files("a.png", waves(31, 17, 0)), other = files("b.png", waves(48, 32, 9));
  std::vector<request::Request> batch(3);
  batch[0].image = batch[2].image = image, batch[1].image = other;
  for (auto& r : batch) r.mask = files("mask.png", white_from(24, 48, 32));
  batch[1].mask = files("right.png", white_from(5, 6, 4));
  const models::Grid grid{.latent_rows = 4, .latent_cols = 6};
  const auto in = read_inputs(batch, grid, 8);
  EXPECT_EQ(in.pixels.sizes(), (at::IntArrayRef{3, 32, 48, 3}));
  EXPECT_TRUE(at::equal(in.pixels[0], in.pixels[2]));
  EXPECT_EQ(in.pixels[1][3][7][0].item<int>(), 7 * 3 + 3 * 2 + 9);
  ASSERT_EQ(in.drawn.sizes(), (at::IntArrayRef{3, 4, 6}));
  for (int64_t col = 0; col < 6; ++col) {
    EXPECT_EQ(in.drawn[0][1][col].item<int>(), col >= 3) << col;
    EXPECT_EQ(in.drawn[1][1][col].item<int>(), col >= 5) << col;
  }
  batch[0].mask.reset(), batch[1].mask.reset(), batch[2].mask.reset();
  EXPECT_FALSE(read_inputs(batch, grid, 8).drawn.defined());
}

TEST(Inputs, ThatCannotBeUsedAreNamed) {
  const Files files;
  const models::Grid grid{.latent_rows = 1, .latent_cols = 1};
  const auto refused = [&](const std::string& file, const std::string& digest = "") {
    std::vector<request::Request> batch(1);
    batch[0].image = file;
    if (!digest.empty()) batch[0].image_sha256 = digest;
    return error_of(Kind::kUsage, [&] { read_inputs(batch, grid, 8); });
  };
  EXPECT_TRUE(has(refused("/nowhere/a.png"), "/nowhere/a.png"));
  const auto text = refused(files.bytes("text.png", "no picture"));
  EXPECT_TRUE(has(text, "text.png: ") && has(text, "PNG, JPEG and WebP")) << text;
  const auto whole = media::encode(waves(16, 16, 0), media::Format::kPng);
  EXPECT_TRUE(has(refused(files.bytes("cut.png", whole.substr(0, whole.size() / 2))), "cut.png: "));
  const auto good = files.bytes("good.png", whole);
  EXPECT_EQ(refused(good, sha256(whole)), "no error");
  EXPECT_TRUE(has(refused(good, sha256("other")), "has changed"));
}

TEST(Edits, BeginWithThePictureAsNoisyAsTheFirstStepWantsIt) {
  const Files files;
  SmallModel model;
  const auto batch = begun_with(files("a.png", waves(48, 32, 0)), 0.5);
  ActivationRecorder probes;
  model.pipeline().generate(batch, {.probes = &probes});
  const auto all = probes.tensors();
  EXPECT_EQ(all.at("timesteps").size(0), 2);
  EXPECT_FALSE(all.contains("step2.model_in"));
  const auto sigma = all.at("sigmas")[0].item<double>();
  const auto expected = (1 - sigma) * all.at("image.latents") + sigma * all.at("noise");
  const auto first = models::find_family("FluxPipeline")->pack(expected);
  EXPECT_LT(distance(all.at("step0.model_in"), first), 1e-6);
  EXPECT_GT(distance(model.probed(begun_with(files("b.png", waves(48, 32, 40)), 0.5), "image"),
                     model.probed(batch, "image")),
            1e-3);
}

TEST(Edits, LatentsOfAPictureAreDrawnFromItsOwnGenerator) {
  const Files files;
  const auto image = files("a.png", waves(48, 32, 0));
  SmallModel model;
  const auto latents = model.probed(begun_with(image, 0.5), "image.latents");
  auto pair = begun_with(image, 0.5);
  pair.insert(pair.begin(), pair[0]);
  pair[0].seed = 6;
  const auto both = model.probed(pair, "image.latents");
  EXPECT_LT(distance(both.narrow(0, 1, 1), latents), 1e-5) << "whatever else is in the batch";
  EXPECT_GT(distance(both.narrow(0, 0, 1), latents), 1e-4) << "another seed";
}

TEST(Edits, KeepWhatTheMaskKeepsAndNothingElse) {
  const Files files;
  SmallModel model;
  auto batch = begun_with(files("a.png", waves(48, 32, 0)), 0.75);
  const auto plain = model.probed(batch, "latents.final");
  const auto masked = [&](int column) {
    batch[0].mask = files("mask.png", white_from(column, 48, 32));
    ActivationRecorder probes;
    model.pipeline().generate(batch, {.probes = &probes});
    return probes.tensors();
  };
  EXPECT_TRUE(at::equal(masked(0).at("latents.final"), plain)) << "white: image to image";
  const auto nothing = masked(48);
  EXPECT_TRUE(at::equal(nothing.at("latents.final"), nothing.at("image.latents"))) << "black: the picture";
  const auto half = masked(24);
  const auto kept = half.at("latents.final").narrow(3, 0, 3),
             drawn = half.at("latents.final").narrow(3, 3, 3);
  EXPECT_TRUE(at::equal(kept, half.at("image.latents").narrow(3, 0, 3)));
  EXPECT_GT(distance(drawn, half.at("image.latents").narrow(3, 3, 3)), 1e-2);
  // What is kept is as noisy in between as the next step wants it.
  const auto sigma = half.at("sigmas")[1].item<double>();
  const auto noisy = (1 - sigma) * half.at("image.latents") + sigma * half.at("noise");
  const auto& family = *models::find_family("FluxPipeline");
  const auto between = family.unpack(half.at("step1.model_in"), {.rows = 2, .cols = 3});
  EXPECT_LT(distance(between.narrow(3, 0, 3), noisy.narrow(3, 0, 3)), 1e-6);
}

TEST(Edits, OfFullStrengthUnderAMaskBeginWithNoise) {
  const Files files;
  SmallModel model;
  auto batch = begun_with(files("a.png", waves(48, 32, 0)), 1);
  batch[0].mask = files("mask.png", white_from(24, 48, 32));
  ActivationRecorder probes;
  model.pipeline().generate(batch, {.probes = &probes});
  const auto tensors = probes.tensors();
  EXPECT_TRUE(at::equal(tensors.at("step0.model_in"), tensors.at("noise.packed").transpose(0, 1)));
}

// 5 x 7 tokens: uneven strips.
TEST(Edits, AreTheSameUnderEveryLayout) {
  const Files files;
  const auto folder = ModelRepo::open(kGolden / "model");
  auto batch = request_for({"A red fox", "two boats"}, {5, 6});
  for (auto& r : batch) {
    r.height = 80, r.width = 112, r.num_inference_steps = 4, r.strength = 0.8;
    r.negative_prompt = "rain", r.true_cfg_scale = 2;
    r.mask = files("mask.png", white_from(50, 100, 90));
  }
  batch[0].image = files("a.png", waves(60, 200, 0)), batch[1].image = files("b.png", waves(112, 80, 3));
  const auto drawn = [&](const char* layout) {
    ActivationRecorder probes;
    on_ranks(folder, plan::parse_strategy(layout), {},
             [&](Pipeline& p, int) { p.generate(batch, {.probes = &probes}); });
    const auto all = probes.tensors();
    return at::cat(
        {all.at("latents.final").flatten(), all.at("image").flatten(), all.at("image.moments").flatten()});
  };
  const auto expected = drawn("data=1");
  for (const char* layout :
       {"ulysses=2", "ring=2", "ring=3, parallel_vae", "cfg=2", "tensor=2", "pipefusion=2, sync",
        "pipefusion=2, sync, ulysses=2, parallel_vae", "cfg=2, ring=2", "kv_gather=2"})
    EXPECT_LT(distance(drawn(layout), expected), 2e-5) << layout;
}

TEST(Edits, ThatCannotBeAreRefusedOnEveryRankWhichGoOn) {
  const Files files;
  const auto folder = ModelRepo::open(kGolden / "model");
  const auto good = begun_with(files("a.png", waves(48, 32, 0)), 0.5);
  for (const char* layout : {"ulysses=2", "ring=2, parallel_vae"}) {
    on_ranks(folder, plan::parse_strategy(layout), {}, [&](Pipeline& p, int rank) {
      for (const auto& spoil : std::initializer_list<std::function<void(request::Request&)>>{
               [](auto& r) { r.image = "/nowhere/a.png"; }, [](auto& r) { r.image_sha256 = "another"; },
               [](auto& r) { r.mask = "/nowhere/m.png"; }, [](auto& r) { r.strength = 0.0; },
               [](auto& r) { r.strength.reset(); }}) {
        auto bad = good;
        spoil(bad[0]);
        EXPECT_THROW(p.generate(bad, {}), RequestError) << layout << " rank " << rank;
      }
      EXPECT_EQ(p.generate(good, {}).size(), rank == 0 ? 1u : 0u);
    });
  }
}

}  // namespace
}  // namespace atelier::pipeline
