// A family of another shape through the whole pipeline: declared in a test, known to no other file.
#include "pipeline/toy_family.h"

#include <gtest/gtest.h>

#include "pipeline/testing.h"
#include "plan/parallel_config.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

const ModelRepo& model() {
  static const ModelRepo repo = ModelRepo::random(toy::family(), toy::configs(), "toy", 5);
  return repo;
}

Request request(std::vector<std::string> prompts = {"a fox in the snow", "two boats"}) {
  auto r = request_for(std::move(prompts), {3, 4});
  r.seeds.resize(r.prompts.size());
  r.height = 24, r.width = 20, r.max_sequence_length = 24;
  r.negatives.assign(r.prompts.size(), "rain");
  r.true_cfg = 3;
  return r;
}

const LoadOptions kDouble{.denoiser = at::kDouble};

at::Tensor latents(const plan::ParallelConfig& layout, const Request& r) {
  ActivationRecorder probes;
  on_ranks(model(), layout, kDouble, [&](Pipeline& p, int) { p.generate(r, {.probes = &probes}); });
  return probes.tensors().at("latents.final").to(at::kDouble);
}

void expect_as_one_rank(const std::vector<const char*>& layouts) {
  const auto expected = latents({}, request());
  for (const char* layout : layouts)
    EXPECT_LT(distance(latents(plan::parse_strategy(layout), request()), expected), 1e-6) << layout;
}

TEST(ToyFamily, IsTheSameOnTwoRanks) {
  expect_as_one_rank({"cfg=2", "ulysses=2", "ring=2", "tensor=2", "pipefusion=2, sync", "ulysses=2, shard=2",
                      "pipefusion=2, patches=3, warmup=3"});
}

TEST(ToyFamily, IsTheSameOnFourRanks) {
  expect_as_one_rank({"ulysses=4", "ring=4", "tensor=4", "pipefusion=4, sync", "ulysses=2, ring=2",
                      "tensor=2, ulysses=2", "cfg=2, pipefusion=2, sync", "pipefusion=2, sync, tensor=2",
                      "ring=4, shard=2"});
}

TEST(ToyFamily, StalePatchesAreThoseOfTheSameScheduleOnOneRank) {
  for (const char* layout :
       {"pipefusion=2, patches=3", "pipefusion=2, ulysses=2", "pipefusion=4, warmup=0"}) {
    const auto d = plan::parse_strategy(layout);
    const plan::ParallelConfig one{.patches = plan::patch_count(d), .warmup = d.warmup, .simulate = true};
    EXPECT_LT(distance(latents(d, request()), latents(one, request())), 1e-6) << layout;
  }
}

TEST(ToyFamily, IsBlindToPaddingOfTheTextItAttendsTo) {
  auto longer = request();
  longer.max_sequence_length = 40;
  EXPECT_LT(distance(latents({}, longer), latents({}, request())), 1e-6);
}

TEST(ToyFamily, UsesEveryPartOfItsConditioning) {
  const auto expected = latents({}, request());
  EXPECT_GT(distance(latents({}, request({"a fox in the snow", "two cows"})), expected), 1e-4);
  auto negative = request();
  negative.negatives = {"fog", "fog"};
  EXPECT_GT(distance(latents({}, negative), expected), 1e-4);
}

TEST(ToyFamily, KeysAndValuesOfARequestReplaceThoseOfTheLast) {
  Pipeline* used = nullptr;
  on_ranks(model(), {}, {}, [&](Pipeline& p, int) {
    used = &p;
    p.generate(request({"an owl", "a very long prompt"}), {});
    const auto again = p.generate(request(), {});
    on_ranks(model(), {}, {},
             [&](Pipeline& fresh, int) { EXPECT_EQ(fresh.generate(request(), {})[1].rgb, again[1].rgb); });
  });
  EXPECT_NE(used, nullptr);
}

TEST(ToyFamily, ImagesOfABatchAreThoseOfItsPromptsAlone) {
  Request one = request({"two boats"});
  one.seeds = {4};
  EXPECT_LT(distance(latents({}, one), latents({}, request()).narrow(0, 1, 1)), 1e-6);
}

}  // namespace
}  // namespace atelier::pipeline
