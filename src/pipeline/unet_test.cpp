// A family whose convolutions mix positions, through the whole pipeline: cut by rows, over any
// ranks, one picture.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "pipeline/testing.h"
#include "plan/layouts.h"
#include "plan/parallel_config.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

Json configs() {
  return Json::parse(R"({
    "unet": {"block_out_channels": [8, 16, 24], "layers_per_block": [1, 2, 1], "attention_head_dim": [1, 2, 5],
      "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
      "transformer_layers_per_block": [1, 2, 1], "cross_attention_dim": 40, "norm_num_groups": 4,
      "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "sample_size": 8,
      "projection_class_embeddings_input_dim": 44},
    "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [4, 4, 4, 8], "layers_per_block": 1,
      "norm_num_groups": 2, "latent_channels": 4, "scaling_factor": 0.13},
    "text_encoder": {"architectures": ["CLIPTextModel"], "hidden_size": 16, "intermediate_size": 32,
      "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64, "eos_token_id": 2},
    "text_encoder_2": {"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 24, "intermediate_size": 32,
      "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 64, "eos_token_id": 2, "projection_dim": 20},
    "scheduler": {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
      "beta_end": 0.012, "timestep_spacing": "leading", "steps_offset": 1}
  })");
}

const ModelRepo& model() {
  static const ModelRepo repo =
      ModelRepo::random(*models::find_family("StableDiffusionXLPipeline"), configs(), "unet", 5);
  return repo;
}

// 13 x 7 latents: 4 rows of the smallest size, the last of which is one row of the largest.
std::vector<request::Request> batch_of(const std::vector<std::string>& prompts = {"a fox in the snow",
                                                                                  "two boats"}) {
  auto batch = request_for(prompts, {3, 4});
  for (auto& r : batch) {
    r.height = 104, r.width = 56, r.max_sequence_length = 77, r.num_inference_steps = 2;
    r.guidance_scale = 4, r.guidance_is_cfg = true, r.true_cfg_scale.reset();
    r.guidance_rescale = 0.5;
  }
  return batch;
}

at::Tensor latents(const plan::ParallelConfig& layout,
                   const std::vector<request::Request>& batch = batch_of()) {
  ActivationRecorder probes;
  const LoadOptions in_double{.denoiser = at::kDouble};
  on_ranks(model(), layout, in_double, [&](Pipeline& p, int) { p.generate(batch, {.probes = &probes}); });
  return probes.tensors().at("latents.final").to(at::kDouble);
}

void expect_as_one_rank(const std::vector<const char*>& layouts) {
  const auto expected = latents({});
  for (const char* layout : layouts)
    EXPECT_LT(distance(latents(plan::parse_strategy(layout)), expected), 1e-6) << layout;
}

TEST(UNet, IsTheSameOnTwoRanks) {
  expect_as_one_rank({"ulysses=2", "ulysses=2, collective", "ring=2", "kv_gather=2", "tensor=2", "cfg=2",
                      "ulysses=2, shard=2", "rows=2, parallel_vae"});
}

// Heads: 2 and 5, so four ranks share out those of the smallest pictures only.
TEST(UNet, IsTheSameOnThreeAndFourRanks) {
  expect_as_one_rank({"ulysses=3", "ring=3", "ulysses=4", "ring=4", "ulysses=2, ring=2", "kv_gather=3",
                      "kv_gather=2, ulysses=2", "kv_gather=2, ring=2", "ulysses=2, tensor=2",
                      "cfg=2, ulysses=2", "cfg=2, ring=2", "cfg=2, tensor=2", "ring=4, shard=2"});
}

// With a sampler that draws noise in every step: the generators have been moved on by the picture's latents.
TEST(UNet, BeginsWithAPictureTheSameOnTwoAndFourRanks) {
  const TemporaryFolder files;
  media::Image image{20, 30, std::vector<uint8_t>(1800)}, mask{7, 5, std::vector<uint8_t>(105)};
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<uint8_t>(i * i / 7);
  for (size_t i = 0; i < mask.rgb.size(); ++i) mask.rgb[i] = i / 21 % 2 ? 255 : 0;
  auto batch = batch_of();
  for (auto& r : batch) {
    r.image = (files / "image.png").string(), r.mask = (files / "mask.png").string();
    write_file_atomically(*r.image, media::encode(image, media::Format::kPng));
    write_file_atomically(*r.mask, media::encode(mask, media::Format::kPng));
    r.num_inference_steps = 4, r.strength = 0.7, r.sampler = "euler_a";
  }
  const auto expected = latents({}, batch);
  for (const char* layout : {"ulysses=2", "ring=2", "cfg=2", "rows=2, parallel_vae", "ulysses=4", "tensor=2"})
    EXPECT_LT(distance(latents(plan::parse_strategy(layout), batch), expected), 2e-5)
        << layout;  // VAE: float
}

TEST(UNet, HandsOutHeadsWhereThereAreEnough) {
  on_ranks(model(), {.ulysses = 4}, {}, [&](Pipeline& p, int) {
    p.generate(batch_of(), {});
    for (const char* mode : {"ulysses over 4 by stores", "ring over 4", "rows over 4"})
      EXPECT_TRUE(p.used().contains(mode)) << mode;
  });
}

TEST(UNet, SaysWhichLayoutsItCannotHave) {
  const auto refused = [&](const plan::ParallelConfig& d) {
    const plan::Workload work{.image_tokens = model().image_tokens(104, 56), .branches = 2};
    return error_of(Kind::kUsage, [&] { plan::validate(d, {model().facts(), work}, 0); });
  };
  EXPECT_TRUE(has(refused({.ulysses = 5}), "4 rows of its smallest size"));
  EXPECT_TRUE(has(refused({.pipeline = 2}), "convolutions"));
  EXPECT_TRUE(has(refused({.tensor = 3}), "2 heads"));
  EXPECT_EQ(refused({.ulysses = 4}), "no error");
}

TEST(UNet, SizesThatItIsToldMatterToTheBranchThatIsTold) {
  const auto usual = latents({});
  auto told = batch_of();
  for (auto& r : told) r.original_size = {20, 30}, r.crops_coords_top_left = {3, 5};
  EXPECT_GT(distance(latents({}, told), usual), 1e-3);
  auto half = batch_of();
  for (auto& r : half) r.negative_original_size = {20, 30};
  EXPECT_EQ(distance(latents({}, half), usual), 0) << "counts beside negative_target_size only";
  for (auto& r : half) r.negative_target_size = {64, 64};
  EXPECT_GT(distance(latents({}, half), usual), 1e-3);
}

// As the reference's pipelines that edit: half a size of its own counts, and the crop is the other branch's.
TEST(UNet, SizesOfTheNegativeBranchOfAnEditCountOneByOne) {
  const TemporaryFolder files;
  const media::Image image{20, 30, std::vector<uint8_t>(1800, 90)};
  auto batch = batch_of();
  for (auto& r : batch) {
    r.image = (files / "image.png").string(), r.strength = 0.7;
    write_file_atomically(*r.image, media::encode(image, media::Format::kPng));
    r.crops_coords_top_left = {3, 5};
  }
  const auto usual = latents({}, batch);
  auto own = batch;
  for (auto& r : own) r.negative_original_size = {20, 30};
  EXPECT_GT(distance(latents({}, own), usual), 1e-3);
  for (auto& r : own) r.negative_original_size.reset(), r.negative_crops_coords_top_left = {40, 90};
  EXPECT_EQ(distance(latents({}, own), usual), 0);
}

TEST(UNet, AutoencodersThatOverflowInHalfRunInFloat) {
  const auto drawn = [&](const Json& of, at::ScalarType vae) {
    const auto repo = ModelRepo::random(*models::find_family("StableDiffusionXLPipeline"), of, "unet", 5);
    ActivationRecorder probes;
    on_ranks(repo, {}, {.vae = vae}, [&](Pipeline& p, int) { p.generate(batch_of(), {.probes = &probes}); });
    return probes.tensors().at("vae.out");
  };
  Json obeys = configs(), takes_half = configs();
  takes_half["vae"]["force_upcast"] = false;
  const auto expected = drawn(obeys, at::kFloat);
  EXPECT_EQ(distance(drawn(obeys, at::kHalf), expected), 0);
  EXPECT_GT(distance(drawn(takes_half, at::kHalf), expected), 0);
}

TEST(UNet, LatentsAreBroughtToTheMeanAndDeviationOfTheirChannels) {
  Json shifted = configs();
  shifted["vae"]["latents_mean"] = {1, 2, 3, 4};
  shifted["vae"]["latents_std"] = {2, 2, 2, 4};
  const auto repo = ModelRepo::random(*models::find_family("StableDiffusionXLPipeline"), shifted, "unet", 5);
  ActivationRecorder probes;
  on_ranks(repo, {}, {}, [&](Pipeline& p, int) { p.generate(batch_of(), {.probes = &probes}); });
  const auto final = probes.tensors().at("latents.final"), in = probes.tensors().at("vae.in");
  EXPECT_LT(distance(in.select(1, 3), final.select(1, 3) * 4 / 0.13 + 4), 1e-6);
}

TEST(UNet, NoNegativePromptIsNoTextAtAll) {
  auto empty = batch_of();
  for (auto& r : empty) r.negative_prompt = "";
  EXPECT_GT(distance(latents({}, empty), latents({})), 1e-3);
}

TEST(UNet, DrawsABatchAsItsPicturesOneByOne) {
  const auto both = latents({});
  for (size_t i = 0; i < 2; ++i) {
    const auto alone = latents({}, {batch_of()[i]});
    EXPECT_LT(distance(both.narrow(0, static_cast<int64_t>(i), 1), alone), 1e-6);
  }
}

}  // namespace
}  // namespace atelier::pipeline
