// A family of another shape through the whole pipeline: declared in a test, known to no other file.
#include "pipeline/toy_family.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "models/network_inputs.h"
#include "pipeline/denoiser_call.h"
#include "pipeline/model_work.h"
#include "pipeline/testing.h"
#include "plan/parallel_config.h"
#include "sampling/noise.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const ModelRepo& model() {
  static const ModelRepo repo = ModelRepo::random(toy::family(), toy::configs(), "toy", 5);
  return repo;
}

std::vector<request::Request> batch_of(const std::vector<std::string>& prompts = {"a fox in the snow",
                                                                                  "two boats"}) {
  auto batch = request_for(prompts, {3, 4});
  for (auto& r : batch) {
    r.height = 24, r.width = 20, r.max_sequence_length = 24;
    r.negative_prompt = "rain";
    r.guidance_is_cfg = true;
  }
  return batch;
}

const LoadOptions kDouble{.denoiser = at::kDouble};

at::Tensor latents(const plan::ParallelConfig& layout, const std::vector<request::Request>& batch,
                   const LoadOptions& load = kDouble) {
  ActivationRecorder probes;
  on_ranks(model(), layout, load, [&](Pipeline& p, int) { p.generate(batch, {.probes = &probes}); });
  return probes.tensors().at("latents.final").to(at::kDouble);
}

void expect_as_one_rank(const std::vector<const char*>& layouts) {
  const auto expected = latents({}, batch_of());
  for (const char* layout : layouts)
    EXPECT_LT(distance(latents(plan::parse_strategy(layout), batch_of()), expected), 1e-6) << layout;
}

TEST(ToyFamily, IsTheSameOnTwoRanks) {
  expect_as_one_rank({"cfg=2", "ulysses=2", "ring=2", "kv_gather=2", "tensor=2", "pipefusion=2, sync",
                      "ulysses=2, shard=2", "pipefusion=2, patches=3, warmup=3"});
}

TEST(ToyFamily, IsTheSameOnFourRanks) {
  expect_as_one_rank({"ulysses=4", "ring=4", "tensor=4", "pipefusion=4, sync", "ulysses=2, ring=2",
                      "tensor=2, ulysses=2", "cfg=2, pipefusion=2, sync", "pipefusion=2, sync, tensor=2",
                      "ring=4, shard=2"});
}

TEST(ToyFamily, IsTheSameWithWeightsInHostMemoryUnderEveryStrategy) {
  for (const auto residency : {Residency::kParked, Residency::kStreamed}) {
    const LoadOptions offloaded{.denoiser = at::kDouble, .residency = residency};
    for (const char* layout : {"data=1", "cfg=2", "ulysses=2", "ring=2", "tensor=2", "pipefusion=2, sync",
                               "pipefusion=2, patches=3, warmup=3", "ulysses=2, shard=2"}) {
      const auto d = plan::parse_strategy(layout);
      EXPECT_TRUE(latents(d, batch_of(), offloaded).equal(latents(d, batch_of()))) << layout;
    }
  }
}

TEST(ToyFamily, DrawsBothBranchesInOnePassAsInTwo) {
  const LoadOptions apart{.denoiser = at::kDouble}, joined{.denoiser = at::kDouble, .joins_branches = true};
  for (const char* layout : {"data=1", "cfg=2", "ulysses=2", "ring=2", "tensor=2", "pipefusion=2, sync",
                             "pipefusion=2, patches=3", "ulysses=2, shard=2"}) {
    SCOPED_TRACE(layout);
    const auto d = plan::parse_strategy(layout);
    const auto drawn = [&](const LoadOptions& load) {
      std::vector<media::Image> images;
      on_ranks(model(), d, load, [&](Pipeline& p, int) {
        for (const auto& artifact : p.generate(batch_of(), {})) images.push_back(image_of(artifact));
        EXPECT_EQ(p.used().contains("guidance: both branches in one pass"),
                  load.joins_branches && d.cfg == 1);
      });
      return images;
    };
    const auto expected = drawn(apart), found = drawn(joined);
    ASSERT_EQ(expected.size(), 2u);
    ASSERT_EQ(found.size(), 2u);
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(found[i].rgb, expected[i].rgb);
  }
}

TEST(ToyFamily, StalePatchesAreThoseOfTheSameScheduleOnOneRank) {
  for (const char* layout :
       {"pipefusion=2, patches=3", "pipefusion=2, ulysses=2", "pipefusion=4, warmup=0"}) {
    const auto d = plan::parse_strategy(layout);
    const plan::ParallelConfig one{.patches = plan::patch_count(d), .warmup = d.warmup, .simulate = true};
    EXPECT_LT(distance(latents(d, batch_of()), latents(one, batch_of())), 1e-6) << layout;
  }
}

TEST(ToyFamily, IsBlindToPaddingOfTheTextItAttendsTo) {
  auto longer = batch_of();
  for (auto& r : longer) r.max_sequence_length = 40;
  EXPECT_LT(distance(latents({}, longer), latents({}, batch_of())), 1e-6);
}

TEST(ToyFamily, UsesEveryPartOfItsConditioning) {
  const auto expected = latents({}, batch_of());
  EXPECT_GT(distance(latents({}, batch_of({"a fox in the snow", "two cows"})), expected), 1e-4);
  auto negative = batch_of();
  for (auto& r : negative) r.negative_prompt = "fog";
  EXPECT_GT(distance(latents({}, negative), expected), 1e-4);
}

TEST(ToyFamily, HasItsOwnBranchWhereNobodyGaveANegativePrompt) {
  auto empty = batch_of(), absent = batch_of(), alone = batch_of();
  for (auto& r : empty) r.negative_prompt = "";
  for (auto* batch : {&absent, &alone}) {
    for (auto& r : *batch) r.negative_prompt.reset();
  }
  for (auto& r : alone) r.guidance_scale = 1;
  EXPECT_EQ(distance(latents({}, absent), latents({}, empty)), 0);
  EXPECT_GT(distance(latents({}, absent), latents({}, alone)), 1e-3);
}

TEST(ToyFamily, KeysAndValuesOfARequestReplaceThoseOfTheLast) {
  Pipeline* used = nullptr;
  on_ranks(model(), {}, {}, [&](Pipeline& p, int) {
    used = &p;
    p.generate(batch_of({"an owl", "a very long prompt"}), {});
    const auto again = p.generate(batch_of(), {});
    on_ranks(model(), {}, {}, [&](Pipeline& fresh, int) {
      EXPECT_EQ(image_of(fresh.generate(batch_of(), {})[1]).rgb, image_of(again[1]).rgb);
    });
  });
  EXPECT_NE(used, nullptr);
}

TEST(ToyFamily, StepsTakeTheNoiseThatIsGiven) {
  auto family = toy::family();
  family.sigmas = models::Sigmas::kFromScheduler;
  Json configs = toy::configs();
  configs["scheduler"] = {{"_class_name", "DDPMScheduler"}, {"clip_sample", false}, {"steps_offset", 1}};
  const auto stochastic = ModelRepo::random(family, configs, "toy", 5);
  const auto batch = batch_of({"a fox in the snow"});
  const auto drawn_with = [&](const GivenNoise& noise) {
    ActivationRecorder probes;
    on_ranks(stochastic, {}, kDouble,
             [&](Pipeline& p, int) { p.generate(batch, {.probes = &probes}, noise); });
    return probes.tensors().at("latents.final").to(at::kDouble);
  };
  const uint64_t seed = *batch[0].seed;
  sampling::NoiseSource source(std::span(&seed, 1), {1, 3, 12, 10});
  GivenNoise same{.initial = source.draw(sampling::NoiseSource::kInitial)};
  for (int step = 0; step < *batch[0].num_inference_steps; ++step) same.steps.push_back(source.draw(step));
  EXPECT_EQ(distance(drawn_with(same), drawn_with({})), 0);
  auto other = same;
  other.steps.front() = at::zeros({1, 3, 12, 10});
  EXPECT_GT(distance(drawn_with(other), drawn_with(same)), 1e-3);
}

TEST(ToyFamily, ImagesOfABatchAreThoseOfItsPromptsAlone) {
  auto one = batch_of({"two boats"});
  one[0].seed = 4;
  EXPECT_LT(distance(latents({}, one), latents({}, batch_of()).narrow(0, 1, 1)), 1e-6);
}

// Nobody keeps a table of families: what is planned and what is called is what the family says.
TEST(ToyFamily, SaysWhatItsBlocksMultiply) {
  EXPECT_TRUE(model_work(model()).blocks.empty());
  auto family = toy::family();
  family.work = [](const Json& j) {
    const toy::ToyConfig c(j);
    return ModelWork{.blocks = std::vector<BlockWork>(static_cast<size_t>(c.blocks), {.per_token = 7})};
  };
  const auto work = model_work(ModelRepo::random(family, toy::configs(), "toy", 5));
  ASSERT_EQ(work.blocks.size(), 4u);
  EXPECT_EQ(work.blocks[3].per_token, 7);
  EXPECT_EQ(work.weights.blocks, model_work(model()).weights.blocks);
}

TEST(ToyFamily, SaysWhatACallOfItsNetworkTakes) {
  auto family = toy::family();
  family.call.condition = [](const Json& j, models::NetworkInputs& inputs) {
    return nn::Conditioning{.whole = {{"pooled", inputs.take("y", {toy::ToyConfig(j).pooled_width})}}};
  };
  DenoiserCall call{.latents = at::ones({1, 3, 4, 6}), .timesteps = at::ones({1})};
  call.inputs["y"] = at::ones({1, 16});
  const auto checked = check_call(family, model().denoiser(), call, 1, 0);
  EXPECT_TRUE(checked.groups.at(0).conditioning.whole.at("pooled").equal(call.inputs.at("y")));
  call.inputs["y"] = at::ones({1, 15});
  EXPECT_TRUE(has(error_of(Kind::kUsage, [&] { check_call(family, model().denoiser(), call, 1, 0); }),
                  "the family toy takes y"));
}

}  // namespace
}  // namespace atelier::pipeline
