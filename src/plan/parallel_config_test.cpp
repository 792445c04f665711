// Strategy strings: the spellings users bring along, and errors that name the word.
#include "plan/parallel_config.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace atelier::plan {
namespace {

std::string error_of(std::string_view text) {
  try {
    parse_strategy(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Kind::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << text;
  return "";
}

void expect_mentions(const std::string& message, std::initializer_list<std::string_view> parts) {
  for (std::string_view part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

TEST(Strategy, EverySpellingOfTheSourcesResolves) {
  EXPECT_EQ(parse_strategy("ulysses_degree=2"), (ParallelConfig{.ulysses = 2}));
  EXPECT_EQ(parse_strategy("cfg_parallel=2, ulysses_degree=2"), (ParallelConfig{.cfg = 2, .ulysses = 2}));
  EXPECT_EQ(parse_strategy("cfg_parallel=2, pipefusion_parallel=4"),
            (ParallelConfig{.cfg = 2, .pipeline = 4}));
  EXPECT_EQ(parse_strategy("pipefusion=2"), (ParallelConfig{.pipeline = 2}));
  EXPECT_EQ(parse_strategy("pipeline_parallel_size=2"), (ParallelConfig{.pipeline = 2, .sync = true}));
  EXPECT_EQ(parse_strategy("pipeline_parallel=1"), ParallelConfig());
  EXPECT_EQ(parse_strategy("cfg=2, pipefusion=4"), (ParallelConfig{.cfg = 2, .pipeline = 4}));
  EXPECT_EQ(parse_strategy("cfg=2,pipefusion=2,ring=2"),
            (ParallelConfig{.cfg = 2, .pipeline = 2, .ring = 2}));
  EXPECT_EQ(parse_strategy("dp=2 u=2 r=3 tp=4 p=5"),
            (ParallelConfig{.data = 2, .pipeline = 5, .ring = 3, .ulysses = 2, .tensor = 4}));
  EXPECT_EQ(parse_strategy("kv_gather=2"), (ParallelConfig{.kv_gather = 2}));
  EXPECT_EQ(parse_strategy("KV-Gather-Degree=3, ulysses=2"), (ParallelConfig{.kv_gather = 3, .ulysses = 2}));
}

TEST(Strategy, CaseDashesSpacesAndSwitchesDoNotMatter) {
  EXPECT_EQ(parse_strategy(" CFG-Parallel = 2 ;\tUlysses-Degree =3 "),
            (ParallelConfig{.cfg = 2, .ulysses = 3}));
  EXPECT_EQ(parse_strategy("use_cfg_parallel=true"), (ParallelConfig{.cfg = 2}));
  EXPECT_EQ(parse_strategy("cfg, pipefusion=2, sync"),
            (ParallelConfig{.cfg = 2, .pipeline = 2, .sync = true}));
  EXPECT_EQ(parse_strategy("cfg=off"), ParallelConfig{});
  EXPECT_EQ(parse_strategy("cfg=1"), ParallelConfig{});
  EXPECT_EQ(parse_strategy("pipefusion=4, patches=8, warmup=0, parallel_vae, shard=2"),
            (ParallelConfig{
                .pipeline = 4, .patches = 8, .warmup = 0, .parallel_vae = PictureRows::kAlways, .shard = 2}));
  EXPECT_EQ(parse_strategy(""), ParallelConfig{});
}

TEST(Strategy, ErrorsNameTheWordAndTheKnownOnes) {
  expect_mentions(error_of("ulises=2"),
                  {"unknown word \"ulises\"", "did you mean \"ulysses\"", "pipefusion", "tensor"});
  expect_mentions(error_of("magic=2"),
                  {"\"magic\"", "known words: data, cfg, pipefusion, ring, kv_gather, ulysses, tensor"});
  expect_mentions(error_of("ring=two"), {"ring=two", "whole number"});
  expect_mentions(error_of("ring=0"), {"ring=0"});
  expect_mentions(error_of("ring=-2"), {"ring=-2"});
  expect_mentions(error_of("ring=2x"), {"ring=2x"});
  expect_mentions(error_of("ring=99999999999999999999"), {"ring=9999"});
  expect_mentions(error_of("cfg=3"), {"cfg=3", "1 or 2"});
  expect_mentions(error_of("ulysses"), {"ulysses needs a value"});
  expect_mentions(error_of("ulysses="), {"ulysses needs a value"});
  expect_mentions(error_of("u=2, ulysses_degree=4"), {"ulysses is given twice"});
  expect_mentions(error_of("sync=maybe"), {"sync=maybe"});
  expect_mentions(error_of("=2"), {"unknown word \"\""});
}

TEST(Strategy, BarsStandBetweenSeveral) {
  const auto several = parse_strategies("data=1 | ulysses=2, ring=2|cfg");
  ASSERT_EQ(several.size(), 3u);
  EXPECT_EQ(several[0], ParallelConfig{});
  EXPECT_EQ(world_size(several[1]), 4);
  EXPECT_EQ(several[2].cfg, 2);
  EXPECT_EQ(parse_strategies("").size(), 1u);
}

TEST(Strategy, SpellIsReadBack) {
  for (const ParallelConfig& d :
       {ParallelConfig{}, ParallelConfig{.cfg = 2, .ulysses = 4},
        ParallelConfig{.data = 3, .tensor = 2, .warmup = 0}, ParallelConfig{.ring = 2, .kv_gather = 3},
        ParallelConfig{
            .pipeline = 2, .patches = 6, .sync = true, .parallel_vae = PictureRows::kAlways, .shard = 1}}) {
    EXPECT_EQ(parse_strategy(to_string(d)), d) << to_string(d);
  }
  EXPECT_EQ(to_string({.cfg = 2, .pipeline = 2, .ring = 2}), "cfg=2, pipefusion=2, ring=2");
  EXPECT_EQ(to_string({}), "data=1");
  EXPECT_EQ(to_string({.ring = 2, .overlap = false}), "ring=2, overlap_p2p_comm=false");
  EXPECT_FALSE(parse_strategy("ring=2, overlap_p2p_comm=false").overlap);
}

TEST(Strategy, ProductAndSizesListEveryFactor) {
  const ParallelConfig d{.cfg = 2, .pipeline = 4, .ulysses = 2};
  EXPECT_EQ(world_size(d), 16);
  EXPECT_EQ(world_size({.cfg = 2, .kv_gather = 3, .ulysses = 2}), 12);
  EXPECT_EQ(sequence_size({.cfg = 2, .ring = 2, .kv_gather = 3, .ulysses = 2, .tensor = 2}), 12);
  EXPECT_EQ(product(d), "data 1 x cfg 2 x pipefusion 4 x ring 1 x kv_gather 1 x ulysses 2 x tensor 1 = 16");
  EXPECT_EQ(mesh_sizes(d), (std::array<int, kAxes>{1, 2, 4, 1, 1, 2, 1}));
  EXPECT_GT(world_size({.data = 2000000000, .ring = 2000000000, .ulysses = 2000000000}), 1000000000);
}

TEST(Strategy, PatchesFollowTheStagesUnlessSaid) {
  EXPECT_EQ(patch_count({.pipeline = 4}), 4);
  EXPECT_EQ(patch_count({.pipeline = 4, .patches = 7}), 7);
  EXPECT_EQ(patch_count({.pipeline = 1, .patches = 7}), 1);
  EXPECT_EQ(patch_count({.pipeline = 4, .patches = 7, .sync = true}), 1);
}

}  // namespace
}  // namespace atelier::plan
