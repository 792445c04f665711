// Routes: every block exactly once, no empty stage, mirrored skips at home, and the best split by cost.
#include "plan/route.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <string>

#include "base/error.h"

namespace atelier::plan {
namespace {

void expect_contiguous(const std::vector<ModelChunk>& route, int blocks) {
  int next = 0;
  for (const ModelChunk& chunk : route) {
    ASSERT_EQ(chunk.begin, next);
    ASSERT_GT(chunk.end, chunk.begin);
    next = chunk.end;
  }
  ASSERT_EQ(next, blocks);
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Kind::kUsage);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(Route, StraightSizesDifferByAtMostOne) {
  for (int blocks = 1; blocks <= 60; ++blocks) {
    for (int stages = 1; stages <= std::min(blocks, 8); ++stages) {
      const auto route = straight(blocks, stages);
      ASSERT_EQ(static_cast<int>(route.size()), stages);
      expect_contiguous(route, blocks);
      for (int i = 0; i < stages; ++i) {
        EXPECT_EQ(route[i].stage, i);
        EXPECT_EQ(route[i].end - route[i].begin, blocks / stages + (i < blocks % stages ? 1 : 0));
      }
    }
  }
}

TEST(Route, MoreStagesThanBlocksAreRefusedWithTheNumbers) {
  const std::string message = message_of([] { straight(5, 6); });
  EXPECT_NE(message.find("6 stages"), std::string::npos) << message;
  EXPECT_NE(message.find("5 blocks"), std::string::npos) << message;
  EXPECT_THROW(straight(5, 0), Error);
  EXPECT_THROW(folded(5, 4), Error);
}

TEST(Route, GivenSizesAreTakenAsTheyAre) {
  const std::vector<int> sizes{10, 9, 19, 19};
  const auto route = straight(57, 4, sizes);
  expect_contiguous(route, 57);
  EXPECT_EQ(route[2], (ModelChunk{2, 19, 38}));
}

TEST(Route, GivenSizesMustFitStagesAndBlocks) {
  const std::vector<int> sizes{10, 9};
  const std::string wrong_sum = message_of([&] { straight(57, 2, sizes); });
  EXPECT_NE(wrong_sum.find("sum 19"), std::string::npos) << wrong_sum;
  EXPECT_NE(wrong_sum.find("sum 57"), std::string::npos) << wrong_sum;
  const std::string wrong_count = message_of([&] { straight(19, 4, sizes); });
  EXPECT_NE(wrong_count.find("4 numbers"), std::string::npos) << wrong_count;
  const std::vector<int> with_zero{19, 0};
  EXPECT_THROW(straight(19, 2, with_zero), Error);
}

TEST(Route, EqualCostsGiveTheEvenSplit) {
  for (int blocks = 1; blocks <= 60; ++blocks) {
    const std::vector<double> cost(blocks, 0.3);
    for (int stages = 1; stages <= std::min(blocks, 8); ++stages) {
      ASSERT_EQ(straight(cost, stages), straight(blocks, stages)) << blocks << " over " << stages;
    }
  }
}

// The largest stage of the best split, by trying all of them.
double best_by_trying(std::span<const double> cost, int stages) {
  if (stages == 1) return std::accumulate(cost.begin(), cost.end(), 0.0);
  double best = 1e300, first = 0;
  for (size_t n = 1; n + stages - 1 <= cost.size(); ++n) {
    first += cost[n - 1];
    best = std::min(best, std::max(first, best_by_trying(cost.subspan(n), stages - 1)));
  }
  return best;
}

TEST(Route, NoSplitHasACheaperBottleneck) {
  unsigned seed = 7;
  for (int round = 0; round < 60; ++round) {
    std::vector<double> cost(4 + round % 7);
    for (double& block : cost) block = 1 + (seed = seed * 1664525u + 1013904223u) % 1000 / 100.0;
    for (int stages = 1; stages <= 4; ++stages) {
      const auto route = straight(cost, stages);
      ASSERT_EQ(static_cast<int>(route.size()), stages);
      expect_contiguous(route, static_cast<int>(cost.size()));
      double largest = 0;
      for (const ModelChunk& chunk : route) {
        largest =
            std::max(largest, std::accumulate(cost.begin() + chunk.begin, cost.begin() + chunk.end, 0.0));
      }
      EXPECT_NEAR(largest, best_by_trying(cost, stages), 1e-9);
    }
  }
}

TEST(Route, DoubleBlocksAtTwiceTheCostMakeTheirStageShorter) {
  std::vector<double> cost(57, 1.0);  // 19 double blocks before 38 single ones: 76 units of work
  std::fill_n(cost.begin(), 19, 2.0);
  const auto route = straight(cost, 4);
  EXPECT_EQ(route[0].end, 10);  // 20 units; 9 double blocks would leave 58 for three stages: 20 again
  EXPECT_EQ(straight(57, 4)[0].end, 15);
}

TEST(Route, RanksAreNamedWithTheirBlocks) {
  const ModelFacts plain{.blocks = 30};
  EXPECT_EQ(blocks_by_rank({.pipeline = 2}, plain), "rank 0 blocks 0-14, rank 1 blocks 15-29");
  EXPECT_EQ(blocks_by_rank({.pipeline = 2, .tensor = 2}, plain),
            "ranks 0-1 blocks 0-14, ranks 2-3 blocks 15-29");
  EXPECT_EQ(blocks_by_rank({.cfg = 2, .pipeline = 2}, plain),
            "ranks 0+2 blocks 0-14, ranks 1+3 blocks 15-29");
  EXPECT_EQ(blocks_by_rank({.pipeline = 2, .stage_blocks = {29, 1}}, plain),
            "rank 0 blocks 0-28, rank 1 blocks 29");
  ModelFacts skips = plain;
  skips.blocks = 9, skips.has_skips = true;
  EXPECT_EQ(blocks_by_rank({.pipeline = 2}, skips), "rank 0 blocks 0-1+7-8, rank 1 blocks 2-6");
}

TEST(Route, FoldedKeepsMirroredBlocksOnOneStage) {
  for (int blocks = 2; blocks <= 60; ++blocks) {
    for (int stages = 2; stages <= std::min((blocks + 1) / 2, 8); ++stages) {
      const auto route = folded(blocks, stages);
      expect_contiguous(route, blocks);
      std::vector<int> home(blocks, -1), load(stages, 0);
      for (const ModelChunk& chunk : route) {
        for (int block = chunk.begin; block < chunk.end; ++block) home[block] = chunk.stage;
        load[chunk.stage] += chunk.end - chunk.begin;
      }
      for (int block = 0; block < blocks; ++block) ASSERT_EQ(home[block], home[blocks - 1 - block]);
      EXPECT_GE(*std::min_element(load.begin(), load.end()), 1);
      EXPECT_LE(*std::max_element(load.begin(), load.end()) - *std::min_element(load.begin(), load.end()), 2);
      EXPECT_EQ(route.back().stage, 0) << "the output must end where the sampler is";
    }
  }
}

TEST(Route, FoldedStagesMayBeGivenTheirBlocks) {
  const auto plan = [](int blocks, std::vector<int> sizes) {
    ParallelConfig config{.pipeline = static_cast<int>(sizes.size())};
    config.stage_blocks = std::move(sizes);
    return plan_for(config, {.blocks = blocks, .has_skips = true}).chunks;
  };
  EXPECT_EQ(plan(8, {2, 6}), (std::vector<ModelChunk>{{0, 0, 1}, {1, 1, 4}, {1, 4, 7}, {0, 7, 8}}));
  EXPECT_EQ(plan(9, {8, 1}), (std::vector<ModelChunk>{{0, 0, 4}, {1, 4, 5}, {0, 5, 9}}));
  EXPECT_EQ(plan(40, {20, 20}), folded(40, 2));
  EXPECT_EQ(plan(8, {8}), folded(8, 1));
  EXPECT_THROW(plan(8, {3, 5}), Error) << "a skip would travel";
  EXPECT_THROW(plan(9, {1, 8}), Error) << "the middle block is on the last stage";
  EXPECT_THROW(plan(8, {2, 4}), Error);
}

TEST(Route, FoldedIsZeroToLastAndBack) {
  EXPECT_EQ(folded(40, 2), (std::vector<ModelChunk>{{0, 0, 10}, {1, 10, 20}, {1, 20, 30}, {0, 30, 40}}));
  EXPECT_EQ(folded(5, 2), (std::vector<ModelChunk>{{0, 0, 1}, {1, 1, 2}, {1, 2, 4}, {0, 4, 5}}));
  EXPECT_EQ(folded(3, 2), (std::vector<ModelChunk>{{0, 0, 1}, {1, 1, 2}, {0, 2, 3}}));
  EXPECT_EQ(folded(7, 1), (std::vector<ModelChunk>{{0, 0, 7}}));
  EXPECT_EQ(chunks_of(folded(40, 2), 0), (std::vector<ModelChunk>{{0, 0, 10}, {0, 30, 40}}));
  EXPECT_EQ(stages_of(folded(40, 2)), 2);
}

}  // namespace
}  // namespace atelier::plan
