// Layouts: the limits and their messages, the default rule, and the advice, on shapes of real models.
#include "plan/layouts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "base/error.h"

namespace atelier::plan {
namespace {

const LayoutQuery kSmall{{.name = "small", .heads = 12, .blocks = 6},
                         {.image_tokens = 256, .text_tokens = 7}};
const LayoutQuery kLarge{{.name = "large", .heads = 24, .blocks = 57},
                         {.image_tokens = 4096, .text_tokens = 512}};
const LayoutQuery kGuided{{.name = "guided", .heads = 24, .blocks = 57},
                          {.image_tokens = 4096, .branches = 2}};
const LayoutQuery kSkips{{.name = "skips", .heads = 16, .blocks = 40, .has_skips = true},
                         {.image_tokens = 4096, .branches = 2}};
const LayoutQuery kRows{{.name = "rows", .heads = 10, .blocks = 9, .has_convolution_mixer = true},
                        {.image_tokens = 32, .branches = 2}};

LayoutQuery with(LayoutQuery query, int steps, int batch = 0) {
  query.work.steps = steps, query.work.batch = batch;
  return query;
}

std::string refused(const ParallelConfig& degrees, const LayoutQuery& query, int num_gpus = 0) {
  try {
    validate(degrees, query, num_gpus);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Kind::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << to_string(degrees);
  return "";
}

void expect_mentions(const std::string& message, std::initializer_list<std::string_view> parts) {
  for (std::string_view part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

TEST(Layouts, ProductMismatchListsEveryFactorAndLayoutsThatWork) {
  expect_mentions(
      refused({.ulysses = 4}, kLarge, 6),
      {"need 4 ranks", "data 1 x cfg 1 x pipefusion 1 x ring 1 x kv_gather 1 x ulysses 4 x tensor 1 = 4",
       "but 6", "layouts of 6 ranks that work: ulysses=6"});
  expect_mentions(refused({.cfg = 2, .pipeline = 4}, kGuided, 16), {"= 8", "layouts of 16 ranks"});
  validate({.cfg = 2, .pipeline = 4}, kGuided, 8);
  validate({.cfg = 2, .pipeline = 4}, kGuided, 0);
}

TEST(Layouts, MoreRanksThanHeadsAreRefusedWithAnEvenWayOut) {
  expect_mentions(refused({.ulysses = 16}, kSmall, 16), {"12 heads", "16 ranks", "4 ranks would have none",
                                                         "ring=4, ulysses=4", "; of 12: ulysses=12"});
  expect_mentions(refused({.pipeline = 9}, kSmall), {"; of 6: pipefusion=6"});
  expect_mentions(refused({.ulysses = 13}, kSmall, 13),
                  {": 1 rank would have none", "of 13", "; of 12: ulysses=12"});
  expect_mentions(refused({.ulysses = 4, .tensor = 4}, kSmall), {"ulysses 4 x tensor 4 = 16", "12 heads"});
  validate({.ulysses = 12}, kSmall, 0);
  validate({.ulysses = 5}, kSmall, 5);
  validate({.ulysses = 4, .tensor = 3}, kSmall, 12);
}

TEST(Layouts, KeysAreGatheredWhateverTheNumberOfHeads) {
  validate({.kv_gather = 16}, kSmall, 16);
  validate({.kv_gather = 5, .ulysses = 12}, kSmall, 60);
  validate({.cfg = 2, .kv_gather = 16}, kRows, 32);
  validate({.pipeline = 2, .ring = 2, .kv_gather = 2, .tensor = 2}, kLarge, 16);
  validate({.kv_gather = 2, .ulysses = 2, .shard = 4}, kLarge, 4);
  expect_mentions(refused({.kv_gather = 33}, kRows), {"kv_gather 33", "32 rows"});
  expect_mentions(refused({.kv_gather = 0}, kLarge), {"kv_gather=0"});
  expect_mentions(refused({.kv_gather = 2, .shard = 3}, kLarge), {"kv_gather 2", "must divide 2"});
}

TEST(Layouts, MoreRanksThanTokensOrBlocksAreRefused) {
  LayoutQuery few = kSmall;
  few.work.image_tokens = 7;
  expect_mentions(refused({.ring = 4, .ulysses = 2}, few),
                  {"ring 4 x ulysses 2 = 8", "7 tokens", ": 1 rank would have none"});
  validate({.ring = 7}, few, 7);
  expect_mentions(refused({.kv_gather = 4, .ulysses = 2}, few),
                  {"ring 1 x kv_gather 4 x ulysses 2 = 8", "7 tokens", ": 1 rank would have none"});
  validate({.kv_gather = 7}, few, 7);
  expect_mentions(refused({.pipeline = 8}, kSmall), {"8 stages", "6 blocks"});
  validate({.pipeline = 6}, kSmall, 6);
  expect_mentions(refused({.pipeline = 21}, kSkips), {"40 blocks in mirrored pairs", "at most 20"});
  expect_mentions(refused({.pipeline = 2, .patches = 300}, kSmall), {"patches=300", "256 tokens"});
}

TEST(Layouts, FewerTextTokensThanRanksAreLegal) {
  LayoutQuery short_text = kSmall;
  short_text.work.text_tokens = 3;
  validate({.ring = 8}, short_text, 8);
}

TEST(Layouts, GuidanceNeedsTwoBranches) {
  expect_mentions(refused({.cfg = 2}, kLarge), {"one branch per step", "ulysses_degree 2", "ring_degree 2",
                                                "negative prompt", "true_cfg_scale"});
  validate({.cfg = 2}, kGuided, 2);
}

TEST(Layouts, ConvolutionsAllowNoStages) {
  expect_mentions(refused({.pipeline = 2}, kRows), {"pipefusion=2", "convolutions"});
  validate({.cfg = 2, .ulysses = 16}, kRows, 32);
  expect_mentions(refused({.ulysses = 33}, kRows), {"32 rows"});
}

TEST(Layouts, WeightShardsDivideTheSequenceGroup) {
  validate({.ring = 2, .ulysses = 2, .shard = 4}, kLarge, 4);
  expect_mentions(refused({.ring = 2, .ulysses = 2, .shard = 3}, kLarge), {"shard=3", "= 4 ranks"});
  expect_mentions(refused({.data = 4, .shard = 4}, kLarge), {"shard=4", "must divide 1"});
}

TEST(Layouts, DegreesBelowOneAreRefused) {
  expect_mentions(refused({.ring = 0}, kLarge), {"ring=0"});
  expect_mentions(refused({.data = -1}, kLarge, 4), {"data=-1"});
  expect_mentions(refused({.warmup = -1}, kLarge), {"warmup=-1"});
}

TEST(Layouts, NamedLayoutsOfTheSpecAreValid) {
  for (const ParallelConfig& d :
       {ParallelConfig{.data = 2, .ring = 2, .ulysses = 2}, ParallelConfig{.data = 2, .ulysses = 4},
        ParallelConfig{.data = 2, .ring = 2, .ulysses = 4}, ParallelConfig{.pipeline = 2, .ulysses = 4},
        ParallelConfig{.ulysses = 8}, ParallelConfig{.ring = 4}, ParallelConfig{.pipeline = 4},
        ParallelConfig{.pipeline = 2, .tensor = 2}}) {
    validate(d, kLarge, world_size(d));
  }
  for (const ParallelConfig& d :
       {ParallelConfig{.cfg = 2, .ulysses = 2}, ParallelConfig{.cfg = 2, .pipeline = 4},
        ParallelConfig{.cfg = 2, .pipeline = 2, .ring = 2}}) {
    validate(d, kSkips, world_size(d));
  }
}

TEST(Layouts, AllAreValidDistinctAndOrderedByIdleTime) {
  for (const LayoutQuery& query : {kSmall, kLarge, kGuided, kSkips, kRows}) {
    for (int ranks = 1; ranks <= 16; ++ranks) {
      const auto found = layouts(query, ranks);
      ASSERT_FALSE(found.empty());
      std::set<std::string> spellings;
      double last = 0;
      for (const ParallelConfig& d : found) {
        ASSERT_NO_THROW(validate(d, query, ranks));
        spellings.insert(to_string(d));
        EXPECT_GE(idle_share(d, query), last - 0.01);
        last = idle_share(d, query);
      }
      EXPECT_EQ(spellings.size(), found.size());
    }
  }
}

TEST(Layouts, NoneIsMissing) {
  int counted = 0;
  for (int data : {1, 2, 4, 8}) {
    for (int stages : {1, 2, 4, 8}) {
      for (int ring : {1, 2, 4, 8}) {
        for (int ulysses : {1, 2, 4, 8}) {
          for (int tensor : {1, 2, 4, 8}) {
            for (int gather : {1, 2, 4, 8}) counted += data * stages * ring * gather * ulysses * tensor == 8;
          }
        }
      }
    }
  }
  EXPECT_EQ(static_cast<int>(layouts(kLarge, 8).size()), counted);
  EXPECT_EQ(layouts(kLarge, 8).front(), (ParallelConfig{.ulysses = 8}));
  EXPECT_EQ(layouts(kGuided, 8).front(), (ParallelConfig{.cfg = 2, .ulysses = 4}));
}

TEST(Layouts, AutomaticTakesGuidanceThenUlyssesThenRing) {
  EXPECT_EQ(automatic(kLarge, 1), ParallelConfig{});
  EXPECT_EQ(automatic(kLarge, 4), (ParallelConfig{.ulysses = 4}));
  EXPECT_EQ(automatic(kGuided, 4), (ParallelConfig{.cfg = 2, .ulysses = 2}));
  EXPECT_EQ(automatic(kGuided, 3), (ParallelConfig{.ulysses = 3}));
  EXPECT_EQ(automatic(kSmall, 8),
            (ParallelConfig{.ring = 2, .ulysses = 4}));  // not 8: a quarter of the attention would idle
  EXPECT_EQ(automatic(kSmall, 5), (ParallelConfig{.ulysses = 5}));  // uneven, but there is no other divisor
  EXPECT_EQ(automatic(kSmall, 13), (ParallelConfig{.ring = 13}));
  LayoutQuery tiny = kSmall;
  tiny.work.image_tokens = 6;
  EXPECT_EQ(automatic(tiny, 16), (ParallelConfig{.data = 4, .ulysses = 4}));
  EXPECT_EQ(automatic(kRows, 8), (ParallelConfig{.cfg = 2, .ulysses = 4}));
}

TEST(Layouts, AutomaticIsAlwaysValid) {
  for (const LayoutQuery& query : {kSmall, kLarge, kGuided, kSkips, kRows}) {
    for (int ranks = 1; ranks <= 64; ++ranks)
      ASSERT_NO_THROW(validate(automatic(query, ranks), query, ranks));
  }
}

TEST(Layouts, UnevenHeadsAreAQuarterIdleAndTheEvenLayoutIsNamed) {
  EXPECT_NEAR(idle_share({.ulysses = 8}, kSmall), 0.25, 1e-9);
  const auto lines = advice({.ulysses = 8}, kSmall);
  ASSERT_EQ(lines.size(), 1u);
  expect_mentions(lines[0], {"12 heads", "ulysses 8", "2/2/2/2/1/1/1/1", "25 %", "ring=2, ulysses=4"});
  EXPECT_TRUE(advice({.ring = 2, .ulysses = 4}, with(kSmall, 4)).empty());
}

TEST(Layouts, WarnsOfPipefusionThatCannotPayWithThePredictedLoss) {
  const auto lines = warnings({.pipeline = 2, .ulysses = 4}, with(kSkips, 4));
  ASSERT_EQ(lines.size(), 1u);
  expect_mentions(
      lines[0], {"pipefusion=2 with 2 patches and 4 steps, 1 of them warm-up", "25 % of the steps are serial",
                 "predicted 1.45 times", "27 % of the stages' time idle", "modelled",
                 "on mini with 4 steps, 2 patches and 1 warm-up, PSNR", "dB against one rank",
                 "% of captions right, one rank 100 %", "measured"});
  EXPECT_TRUE(warnings({.pipeline = 2, .ulysses = 4}, with(kSkips, 50)).empty());
  EXPECT_TRUE(warnings({.ulysses = 8}, with(kSkips, 4)).empty());
}

TEST(Layouts, WarnsOfStepsThatAllRunWhole) {
  for (const ParallelConfig& d :
       {ParallelConfig{.pipeline = 4, .sync = true}, ParallelConfig{.pipeline = 4, .patches = 1},
        ParallelConfig{.pipeline = 4, .warmup = 20}}) {
    const auto lines = warnings(d, with(kSkips, 20));
    ASSERT_EQ(lines.size(), 1u) << to_string(d);
    expect_mentions(lines[0], {d.sync ? "4 exact stages" : "pipefusion=4 cannot pay here",
                               "every step runs whole", "at least 75 %"});
  }
  expect_mentions(warnings({.pipeline = 4, .warmup = 5}, with(kSkips, 4)).at(0),
                  {"4 steps, 5 of them warm-up"});
  expect_mentions(warnings({.pipeline = 4, .patches = 2}, kSkips).at(0), {"2 patches for 4 stages", "50 %"});
}

TEST(Layouts, WarnsOfAStartWithoutWarmUpBecauseOfItsPictures) {
  const auto lines = warnings({.pipeline = 2, .warmup = 0}, with(kSkips, 12));
  ASSERT_EQ(lines.size(), 1u);
  expect_mentions(lines[0], {"stale keys change the picture"});
}

TEST(Layouts, SettingsWithoutEffectAreNamed) {
  expect_mentions(advice({.patches = 4}, kLarge).at(0), {"patches=4 has no effect"});
  expect_mentions(advice({.sync = true}, kLarge).at(0), {"sync has no effect"});
  expect_mentions(advice({.pipeline = 4}, kLarge).at(0), {"57 blocks over 4 stages (15/14/14/14)", "5 %"});
  expect_mentions(advice({.data = 4}, with(kLarge, 0, 6)).at(0),
                  {"batch 6 over data 4", "draws 1 at a time"});
}

TEST(Advice, AboutGroupsIsRightForAnyNumberOfPictures) {
  const auto lines = [](int64_t pictures, int batch, int data) {
    auto query = with(kLarge, 0, batch);
    query.work.pictures = pictures;
    std::string out;
    for (const auto& line : advice({.data = data}, query)) out += line + "\n";
    return out;
  };
  EXPECT_EQ(lines(4, 1, 2), "");
  EXPECT_EQ(lines(4, 2, 2), "");
  EXPECT_EQ(lines(8, 4, 2), "");
  expect_mentions(lines(3, 2, 2), {"3 pictures over data 2", "1 of 2 groups have nothing to draw"});
  expect_mentions(lines(1, 2, 2), {"1 picture over data 2", "1 of 2 groups have nothing to draw"});
  expect_mentions(lines(7, 4, 2), {"1 of 2 groups draw one less"});
  expect_mentions(lines(6, 3, 2), {"batch 3 over data 2", "use a multiple of 2"});
}

TEST(Layouts, ABatchIsSplitByBranchesThenPicturesThenTokens) {
  LayoutQuery query{{.name = "small", .heads = 12, .blocks = 8},
                    {.image_tokens = 256, .text_tokens = 32, .branches = 2, .steps = 12, .batch = 1}};
  const auto split = [&](int ranks, int batch, int branches = 2) {
    query.work.batch = batch, query.work.branches = branches;
    const auto d = split_batch(query, ranks);
    EXPECT_EQ(world_size(d), ranks);
    validate(d, query, ranks);
    return to_string(d);
  };
  EXPECT_EQ(split(2, 1), "cfg=2");
  EXPECT_EQ(split(4, 2), "data=2, cfg=2");
  EXPECT_EQ(split(4, 1), "cfg=2, ulysses=2");
  EXPECT_EQ(split(8, 2), "data=2, cfg=2, ulysses=2");
  EXPECT_EQ(split(3, 3), "data=3");
  EXPECT_EQ(split(3, 2), "ulysses=3");
  EXPECT_EQ(split(4, 8, 1), "data=4");
  query.work.pictures = 1;
  EXPECT_EQ(split(4, 2), "cfg=2, ulysses=2");
}

}  // namespace
}  // namespace atelier::plan
