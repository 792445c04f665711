#include "verify/golden_runs.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "nn/testing.h"

namespace atelier::verify {
namespace {

const Json kGolden{
    {"call", {{"prompt", "a"}, {"negative_prompt", "b"}, {"negative_prompt_2", "c"}, {"steps", 4}}},
    {"large_run", {{"steps", 9}, {"width", 64}}}};

Tensors recorded(std::initializer_list<const char*> names) {
  Tensors all;
  for (const char* name : names) all[name] = at::zeros({1});
  return all;
}

TEST(GoldenRuns, AreTheCallAndWhatDiffersFromIt) {
  const auto runs = runs_of(kGolden, recorded({"noise", "latents.final", "large.latents.final", "large.image",
                                               "no_negative.latents.final", "image"}));
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].prefix, "");
  EXPECT_EQ(runs[0].call, kGolden["call"]);
  EXPECT_EQ(runs[0].recorded.size(), 3u);
  EXPECT_EQ(runs[1].prefix, "large.");
  EXPECT_EQ(runs[1].call["steps"], 9);
  EXPECT_EQ(runs[1].call["negative_prompt"], "b");
  EXPECT_TRUE(runs[1].recorded.contains("image") && runs[1].recorded.contains("noise"));
  EXPECT_EQ(runs[2].call, (Json{{"prompt", "a"}, {"steps", 4}}));
}

TEST(GoldenRuns, OfAdaptersNameThemAndTheirStrengths) {
  const Json golden{{"call", {{"prompt", "a"}}},
                    {"runs",
                     {{"base", {{"adapter", nullptr}, {"scale", 0}}},
                      {"one_0.6", {{"adapter", "x"}, {"scale", 0.6}}},
                      {"one", {{"adapter", "x"}, {"scale", 1}}},
                      {"two", {{"adapter", {"x", "y"}}, {"scale", {-1, 0.5}}}}}}};
  const auto tensors = recorded({"noise", "base.latents.final", "one_0.6.latents.final", "two.latents.final",
                                 "merged.one_0.6.unet.a.weight", "merged.one.text_encoder.b.c.weight"});
  const auto runs = runs_of(golden, tensors);
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0].recorded.size(), 1u);  // the noise
  EXPECT_FALSE(runs[1].call.contains("lora"));
  EXPECT_EQ(runs[2].call["lora"], Json({"x:0.6"}));
  EXPECT_EQ(runs[3].call["lora"], (Json{"x:-1", "y:0.5"}));
  const auto merged = merged_of(golden, tensors);
  ASSERT_EQ(merged.size(), 2u);
  EXPECT_EQ(merged[0].run, "one");
  EXPECT_EQ(merged[0].component, "text_encoder");
  EXPECT_EQ(merged[0].tensor, "b.c.weight");
  EXPECT_EQ(merged[1].run, "one_0.6");
  EXPECT_TRUE(
      nn::has(nn::error_of(Kind::kUsage, [&] { merged_of(golden, recorded({"merged.x.y"})); }), "no run"));
}

TEST(GoldenRuns, HaveTheSeedOfTheNoise) {
  Json seeded = kGolden;
  seeded["seed_noise"] = 7;
  for (const auto& run : runs_of(seeded, recorded({"large.latents.final"}))) EXPECT_EQ(run.call["seed"], 7);
}

TEST(GoldenRuns, ThatNobodyDescribesAreErrors) {
  const auto message =
      nn::error_of(Kind::kUsage, [] { runs_of(kGolden, recorded({"small.latents.final"})); });
  EXPECT_TRUE(nn::has(message, "small_run")) << message;
  EXPECT_TRUE(nn::has(nn::error_of(Kind::kUsage, [] { runs_of(Json::object(), {}); }), "no call"));
}

}  // namespace
}  // namespace atelier::verify
