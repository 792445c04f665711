// Drawing with a small model: the same request gives the same bytes, batches equal single pictures, and
// nothing of one request reaches the next.
#include "pipeline/pipeline.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "pipeline/testing.h"
#include "plan/parallel_config.h"
#include "sampling/noise.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const char* const kFox = "A red fox asleep on a mossy stone";
const char* const kBoats = "two paper boats, watercolor";

TEST(PipelineDraws, TheSameBytesForTheSameRequest) {
  SmallModel model;
  const auto request = request_for({kFox}, {5});
  const auto first = model.generate(request), second = model.generate(request);
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].width, 48);
  EXPECT_EQ(first[0].height, 32);
  EXPECT_EQ(first[0].rgb, second[0].rgb);
  EXPECT_NE(first[0].rgb, model.generate(request_for({kFox}, {6}))[0].rgb);
  EXPECT_NE(first[0].rgb, model.generate(request_for({kBoats}, {5}))[0].rgb);
}

TEST(PipelineDraws, ABatchAsItsPicturesOneByOne) {
  SmallModel model;
  const auto both = model.probed(request_for({kFox, kBoats, kFox}, {5, 9, 5}), "image");
  ASSERT_EQ(both.size(0), 3);
  EXPECT_LT(distance(both.narrow(0, 0, 1), model.probed(request_for({kFox}, {5}), "image")), 1e-5);
  EXPECT_LT(distance(both.narrow(0, 1, 1), model.probed(request_for({kBoats}, {9}), "image")), 1e-5);
  EXPECT_LT(distance(both.narrow(0, 0, 1), both.narrow(0, 2, 1)), 1e-5);  // tiles of a matrix may round apart
}

TEST(PipelineDraws, EachPictureFromNoiseOfItsOwnSeed) {
  SmallModel model;
  const auto noise =
      model.probed(request_for({kFox, kFox, kFox, kFox}, {3, 4, 5, uint64_t{1} << 40}), "noise");
  const uint64_t seeds[] = {3, 4, 5, uint64_t{1} << 40};
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(at::equal(
        noise.narrow(0, i, 1),
        sampling::NoiseSource(std::span(&seeds[i], 1), {1, 16, 4, 6}).draw(sampling::NoiseSource::kInitial)));
  }
}

// Buffers are kept while the shape stays: what changes must be written anew.
TEST(PipelineDraws, ARequestAsIfItWereTheFirst) {
  SmallModel used;
  auto other = request_for({kBoats}, {8});
  other[0].guidance_scale = 1.5;
  used.generate(other);
  EXPECT_EQ(used.generate(request_for({kFox}, {5}))[0].rgb,
            SmallModel().generate(request_for({kFox}, {5}))[0].rgb);
  auto larger = request_for({kFox}, {5});
  larger[0].height = 64, larger[0].num_inference_steps = 4, larger[0].max_sequence_length = 20;
  EXPECT_EQ(used.generate(larger)[0].rgb, SmallModel().generate(larger)[0].rgb);
  EXPECT_EQ(used.generate(request_for({kFox}, {5}))[0].rgb,
            SmallModel().generate(request_for({kFox}, {5}))[0].rgb);
}

// Weights that come and go draw the same bits, also after another size, and after a request that fails.
TEST(PipelineDraws, TheSameBytesWhereverTheWeightsLive) {
  SmallModel resident;
  auto larger = request_for({kBoats, kFox}, {8, 9});
  for (auto& r : larger) r.height = 64, r.num_inference_steps = 4;
  const auto noise = at::full({1, 16, 4, 6}, NAN);
  for (const auto residency : {Residency::kParked, Residency::kStreamed}) {
    SmallModel moved({.residency = residency});
    for (int pass = 0; pass < 2; ++pass) {
      EXPECT_EQ(moved.generate(request_for({kFox}, {5}))[0].rgb,
                resident.generate(request_for({kFox}, {5}))[0].rgb);
      EXPECT_EQ(moved.generate(larger)[1].rgb, resident.generate(larger)[1].rgb);
      EXPECT_THROW(moved.pipeline().generate(request_for({kFox}, {5}), {}, {noise}), Error);
    }
  }
}

TEST(PipelineDraws, WithAPromptGuidanceAndANegativePromptThatMatter) {
  SmallModel model;
  auto request = request_for({kFox}, {5});
  const auto plain = model.probed(request, "latents.final");
  request[0].guidance_scale = 7;
  EXPECT_GT(distance(model.probed(request, "latents.final"), plain), 1e-3);
  request[0].guidance_scale = 3.5;
  request[0].negative_prompt = kBoats;
  EXPECT_LT(distance(model.probed(request, "latents.final"), plain), 1e-5)
      << "a scale of one leaves the prompt alone";
  request[0].true_cfg_scale = 4;
  const auto guided = model.probed(request, "latents.final");
  EXPECT_GT(distance(guided, plain), 1e-2);
  request[0].negative_prompt = kFox;
  EXPECT_LT(distance(model.probed(request, "latents.final"), plain), 1e-4) << "equal branches cancel";
}

TEST(PipelineDraws, TheGuidedPredictionFromBothBranches) {
  SmallModel model;
  auto request = request_for({kFox}, {5});
  request[0].num_inference_steps = 1;
  const auto positive = model.probed(request, "step0.model_out");
  request[0].prompt = kBoats;
  const auto negative = model.probed(request, "step0.model_out");
  request[0].prompt = kFox, request[0].negative_prompt = kBoats, request[0].true_cfg_scale = 2.5;
  EXPECT_LT(distance(model.probed(request, "step0.guided"), negative + 2.5 * (positive - negative)), 1e-5);
}

TEST(PipelineDraws, SlicedAsWhole) {
  SmallModel whole, sliced({.vae_slicing = true}), tiled({.vae_tiling = true});
  const auto request = request_for({kFox, kBoats}, {5, 6});
  const auto expected = whole.probed(request, "image");
  EXPECT_LT(distance(sliced.probed(request, "image"), expected), 1e-5);
  // a picture of one tile
  EXPECT_LT(distance(tiled.probed(request, "image"), expected), 1e-5);
}

TEST(PipelineDraws, InBfloat16CloseToFloat) {
  SmallModel wide, narrow({.denoiser = at::kBFloat16});
  const auto request = request_for({kFox}, {5});
  const double far =
      distance(narrow.probed(request, "step0.model_out"), wide.probed(request, "step0.model_out"));
  EXPECT_GT(far, 1e-5) << "nothing was computed in bfloat16";
  EXPECT_LT(far, 1e-1);
}

TEST(PipelineStops, BetweenStepsOrBeforeDecodingAndGoesOnAfterwards) {
  SmallModel model;
  const auto request = request_for({kFox}, {5});
  for (const int end : {0, 2, 3}) {
    std::vector<int> steps;
    const StepCallbacks callbacks{.may_begin = [&](int step) { return step < end; },
                                  .on_step = [&](int step) { steps.push_back(step); }};
    EXPECT_NE(error_of(Kind::kInterrupted, [&] { model.generate(request, callbacks); }), "no error");
    EXPECT_EQ(steps.size(), static_cast<size_t>(end));
    EXPECT_EQ(model.generate(request)[0].rgb, SmallModel().generate(request)[0].rgb);
  }
}

TEST(PipelineReports, WhatAPictureLooksLikeOnItsWay) {
  SmallModel model;
  const auto request = request_for({kFox, kBoats}, {5, 9});
  const auto whole = model.generate(request);
  std::map<int, std::vector<media::Artifact>> previews;
  const auto again = model.generate(
      request, {.wants_preview = [](int step) { return step != 1; },
                .on_preview = [&](int step, auto pictures) { previews[step] = std::move(pictures); }});
  EXPECT_EQ(again[1].rgb, whole[1].rgb);
  ASSERT_EQ(previews.size(), 1u);  // the last step leaves the picture itself
  ASSERT_EQ(previews[0].size(), 2u);
  const auto& early = std::get<media::Image>(previews[0][1]);
  EXPECT_EQ(early.width, whole[1].width);
  EXPECT_NE(early.rgb, whole[1].rgb);
}

// All ranks of the first stage gather; the leader alone decodes, and the picture is what it is without.
TEST(PipelineReports, ThatLookUnderEveryLayout) {
  const auto folder = ModelRepo::open(kGolden / "model");
  const auto request = request_for({kFox}, {5});
  media::Image alone;
  SmallModel().generate(request, {.wants_preview = [](int step) { return step == 0; },
                                  .on_preview = [&](int, auto pictures) { alone = image_of(pictures[0]); }});
  for (const char* layout : {"ulysses=2", "ring=2", "tensor=2", "pipefusion=2", "pipefusion=2, ulysses=2",
                             "ulysses=2, parallel_vae", "ring=2, parallel_vae=false"}) {
    SCOPED_TRACE(layout);
    auto degrees = plan::parse_strategy(layout);
    degrees.warmup = 3;  // whole steps: exact
    std::atomic<int> previews = 0;
    on_ranks(folder, degrees, {}, [&](Pipeline& p, int rank) {
      p.generate(request, {.wants_preview = [](int step) { return step == 0; },
                           .on_preview =
                               [&](int, auto pictures) {
                                 EXPECT_EQ(rank, 0);
                                 ++previews;
                                 const auto& rgb = image_of(pictures[0]).rgb;
                                 ASSERT_EQ(rgb.size(), alone.rgb.size());
                                 for (size_t i = 0; i < rgb.size(); ++i) ASSERT_NEAR(rgb[i], alone.rgb[i], 1);
                               }});
    });
    EXPECT_EQ(previews, 1);
  }
}

TEST(PipelineReports, EveryStepAndPhase) {
  SmallModel model;
  std::vector<int> steps;
  model.generate(request_for({kFox}, {5}), {.on_step = [&](int step) { steps.push_back(step); }});
  EXPECT_EQ(steps, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(model.pipeline().timing().step_ms.size(), 3u);
  for (const char* phase : {"load", "encode", "denoise", "decode"}) {
    EXPECT_GT(model.pipeline().timing().seconds.at(phase), 0) << phase;
  }
  EXPECT_EQ(model.pipeline().used().count("attention: CPU flash"), 1u);
}

TEST(PipelineRefuses, SizesAndStepsThatCannotBe) {
  SmallModel model;
  auto request = request_for({kFox}, {5});
  request[0].width = 50;
  const auto odd = error_of(Kind::kUsage, [&] { model.generate(request); });
  EXPECT_TRUE(has(odd, "50x32") && has(odd, "48x32")) << odd;
  request[0].width = 48, request[0].num_inference_steps = 0;
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { model.generate(request); }), "num_inference_steps"));
}

// Only the leader knows that there is no room for a token; the others wait for what it has encoded.
TEST(PipelineRefuses, WhatTheLeaderCannotEncodeOnEveryRankAndGoesOn) {
  const auto model = ModelRepo::open(kGolden / "model");
  const auto expected = SmallModel().generate(request_for({kFox}, {5}))[0].rgb;
  for (const char* layout : {"ulysses=2", "pipefusion=2, sync", "ring=2, tensor=2"}) {
    on_ranks(model, plan::parse_strategy(layout), {}, [&](Pipeline& p, int rank) {
      auto request = request_for({kFox}, {5});
      for (const auto& spoil : std::initializer_list<std::function<void(request::Request&)>>{
               [](auto& r) { r.max_sequence_length = 0; }, [](auto& r) { r.width = 50; },
               [](auto& r) { r.num_inference_steps = 0; }, [](auto& r) { r.seed.reset(); }}) {
        auto bad = request;
        spoil(bad[0]);
        EXPECT_THROW(p.generate(bad, {}), RequestError) << layout << " rank " << rank;
      }
      const auto images = p.generate(request, {});
      if (rank > 0) return;
      int64_t other = 0;
      for (size_t i = 0; i < expected.size(); ++i) other += image_of(images.at(0)).rgb[i] != expected[i];
      EXPECT_LE(other, 2) << layout;
    });
  }
}

TEST(Pipeline, EncodersCutOverAllRanksEncodeTheSame) {
  const auto model = ModelRepo::open(kGolden / "model");
  const auto request = request_for({kFox, "boats"}, {5, 6});
  for (const char* layout : {"ulysses=2", "pipefusion=3, sync", "shard=2, ulysses=2"}) {
    std::vector<media::Image> expected;
    on_ranks(model, plan::parse_strategy(layout), {}, [&](Pipeline& whole, int rank) {
      const auto images = whole.generate(request, {});
      for (size_t i = 0; rank == 0 && i < images.size(); ++i) expected.push_back(image_of(images[i]));
    });
    on_ranks(model, plan::parse_strategy(layout), {.shard_t5_encoder = true}, [&](Pipeline& p, int rank) {
      const auto used = p.used();
      EXPECT_TRUE(std::any_of(used.begin(), used.end(),
                              [](auto& u) { return u.starts_with("text_encoder_2: weights cut"); }));
      auto bad = request;
      bad[0].max_sequence_length = 0;
      EXPECT_THROW(p.generate(bad, {}), RequestError);
      for (int again = 0; again < 2; ++again) {
        const auto images = p.generate(request, {});
        for (size_t i = 0; rank == 0 && i < images.size(); ++i)
          EXPECT_EQ(image_of(images[i]).rgb, expected.at(i).rgb) << layout << " picture " << i;
      }
    });
  }
}

TEST(PipelineRefuses, WeightsThatHoldNoNumbers) {
  const Copy copy(kGolden / "model");
  copy.edit_tensors("transformer/diffusion_pytorch_model.safetensors",
                    [](weights::Tensors& t) { t.at("transformer_blocks.1.ff.net.2.weight")[3][7] = NAN; });
  const auto message = error_of(Kind::kCheckpoint, [&] { SmallModel({}, copy.path()); });
  EXPECT_TRUE(has(message, "double.1.image.down.weight") ||
              has(message, "transformer_blocks.1.ff.net.2.weight"))
      << message;
}

TEST(Pictures, RoundToTheNearestLevel) {
  const auto image = at::tensor({0.0f, 0.5f, 1.0f, 0.2f / 255, 0.7f / 255, 254.6f / 255}).view({1, 3, 1, 2});
  const auto pictures = to_artifacts(image);
  ASSERT_EQ(pictures.size(), 1u);
  const auto& picture = image_of(pictures[0]);
  EXPECT_EQ(picture.width, 2);
  EXPECT_EQ(picture.height, 1);
  EXPECT_EQ(picture.rgb, (std::vector<uint8_t>{0, 255, 1, 128, 0, 255}));  // pixel by pixel: red, green, blue
}

TEST(Videos, KeepTheOrderOfTheirFramesAndOneFrameIsAnImage) {
  const auto frames = at::tensor({0.0f, 1.0f, 0.0f, 1.0f, 0.2f, 0.2f}).view({1, 3, 2, 1, 1});
  const auto made = to_artifacts(frames, 16);
  const auto& video = std::get<media::Video>(made.at(0));
  EXPECT_EQ(video.fps, 16);
  ASSERT_EQ(video.frames.size(), 2u);
  EXPECT_EQ(video.frames[0].rgb, (std::vector<uint8_t>{0, 0, 51}));
  EXPECT_EQ(video.frames[1].rgb, (std::vector<uint8_t>{255, 255, 51}));
  EXPECT_TRUE(std::holds_alternative<media::Image>(to_artifacts(frames.narrow(2, 0, 1), 16).at(0)));
}

}  // namespace
}  // namespace atelier::pipeline
