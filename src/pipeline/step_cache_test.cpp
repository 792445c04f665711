// Step caches: the rules as tables of numbers, and the block loop under them with the small denoiser, on one
// rank and on several.
#include "pipeline/step_cache.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "nn/testing.h"
#include "pipeline/toy_for_test.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::has;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

StepCacheRule first_block(double threshold) {
  return {StepCacheRule::kFirstBlock, threshold, {}};
}

// "10": which samples of a step take what is kept.
std::string decided(StepCacheDecisions& decisions, int step, std::vector<SignalSums> sums, int expert = 0) {
  std::string out;
  for (const bool reused : decisions.decide(step, expert, sums)) out += reused ? '1' : '0';
  return out;
}

TEST(FirstBlockRule, ComparesEachSampleWithTheThreshold) {
  StepCacheDecisions d(first_block(0.25), 5, 3);
  EXPECT_EQ(decided(d, 0, {{0, 1}, {0, 1}, {0, 1}}), "000") << "nothing is kept";
  EXPECT_EQ(decided(d, 1, {{0.25, 1}, {0.26, 1}, {2, 8}}), "101");
  EXPECT_EQ(decided(d, 2, {{0, 0}, {1, 0}, {kNan, 1}}), "100") << "no size, and no numbers";
  EXPECT_EQ(decided(d, 4, {{0.1, 1}, {0.1, 1}, {0.1, 1}}), "111") << "the last step is like any";
}

TEST(FirstBlockRule, AThresholdOfZeroReusesNothing) {
  StepCacheDecisions d(first_block(0), 3, 2);
  for (int step = 0; step < 3; ++step) EXPECT_EQ(decided(d, step, {{0, 1}, {0, 0}}), "00");
}

TEST(FirstBlockRule, AnotherExpertBegins) {
  StepCacheDecisions d(first_block(0.5), 5, 1);
  EXPECT_EQ(decided(d, 0, {{0, 1}}), "0");
  EXPECT_EQ(decided(d, 1, {{0, 1}}), "1");
  EXPECT_EQ(decided(d, 2, {{0, 1}}, 1), "0");
  EXPECT_EQ(decided(d, 3, {{0, 1}}, 1), "1");
}

// f(x) = 2 x^2 + x - 0.1
TEST(TeaRule, AddsUpWhatThePolynomialMakesOfChanges) {
  StepCacheDecisions d({StepCacheRule::kTea, 0.5, {2, 1, -0.1}}, 6, 2);
  EXPECT_EQ(decided(d, 0, {{9, 1}, {9, 1}}), "00");
  EXPECT_EQ(decided(d, 1, {{0.2, 1}, {0.6, 1}}), "10") << "0.18; 1.22, which begins anew";
  EXPECT_EQ(decided(d, 2, {{0.3, 1}, {0.3, 1}}), "01") << "0.18 + 0.38, and 0.38 after the new beginning";
}

TEST(TeaRule, TheSumOfSeveralStepsReachesTheThreshold) {
  StepCacheDecisions d({StepCacheRule::kTea, 0.5, {2, 1, -0.1}}, 7, 1);
  EXPECT_EQ(decided(d, 0, {{9, 1}}), "0");
  EXPECT_EQ(decided(d, 1, {{0.2, 1}}), "1") << "0.18";
  EXPECT_EQ(decided(d, 2, {{0.2, 1}}), "1") << "0.36";
  EXPECT_EQ(decided(d, 3, {{0.2, 1}}), "0") << "0.54";
  EXPECT_EQ(decided(d, 4, {{0.2, 1}}), "1") << "0.18 again";
  EXPECT_EQ(decided(d, 5, {{kNan, 1}}), "0");
  EXPECT_EQ(decided(d, 6, {{0, 1}}), "0") << "the last step is computed";
}

TEST(StepCacheRequests, AreSettledAndRefusedByName) {
  request::Request r;
  models::Family family{};
  family.name = "toy";
  const auto problem = [&](const ModelFacts& facts, const char* layout) {
    return step_cache_problem(r, family, {}, facts, plan::parse_strategy(layout));
  };
  EXPECT_EQ(problem({.blocks = 1}, "pipefusion=2"), "") << "no cache was asked for";
  r.cache_type = "first_block_cache", r.cache_threshold = 0.1;
  EXPECT_EQ(problem({.blocks = 2}, "cfg=2, ulysses=2, ring=2, tensor=2"), "");
  for (const char* layout : {"pipefusion=2", "pipefusion=2, sync"})
    EXPECT_TRUE(has(problem({.blocks = 2}, layout), "pipefusion_degree 2")) << layout;
  EXPECT_TRUE(has(problem({.blocks = 2, .has_convolution_mixer = true}, ""), "UNet"));
  EXPECT_TRUE(has(problem({.blocks = 1}, ""), "the model has one"));
  r.cache_type = "teacache";
  EXPECT_TRUE(has(problem({.blocks = 2}, ""), "no published coefficients for toy: use first_block_cache"));
  family.tea_coefficients = [](const Json&) { return std::vector<double>{1, 0}; };
  EXPECT_EQ(problem({.blocks = 2}, ""), "");
  const auto rule = step_cache_rule(r, family, {});
  EXPECT_EQ(rule.kind, StepCacheRule::kTea);
  EXPECT_EQ(rule.coefficients, (std::vector<double>{1, 0}));
}

// The block loop.

using ToySetup = ToyRank::ToySetup;

ToySetup cached_setup(const std::string& layout, bool graphs = false) {
  return {
      .config = plan::parse_strategy(layout), .model = {.blocks = 5, .has_skips = false}, .graphs = graphs};
}

// Reuses some steps and not others.
constexpr double kSome = 0.3;

ToyRequest cached_request(double threshold = kSome) {
  return {.steps = 9, .cache = first_block(threshold)};
}

struct NotingDenoiser : ToyDenoiser {
  using ToyDenoiser::ToyDenoiser;
  void block(int i, const nn::CallContext& call, nn::State& s) override {
    ran.push_back(10 * call.branch + i);
    ToyDenoiser::block(i, call, s);
  }
  int64_t count(int block) const { return std::count(ran.begin(), ran.end(), block); }
  std::vector<int> ran;
};

struct NotingRank {
  parallel::ParallelContext parallel{{}, nullptr, nn::SdpaBackend::kMath};
  NotingDenoiser model{parallel.denoiser(), ToyOptions{.blocks = 5, .has_skips = false}};
  nn::Resident memory;
  ToyRank rank{cached_setup(""), nullptr, {{&model, &memory}}};
};

TEST(CachedLoop, BlocksThatAreLeftOutDoNotRun) {
  const c10::InferenceMode guard;
  NotingRank one;
  auto r = cached_request();
  r.branches = 1;
  one.rank.draw(r);
  const auto counts = one.rank.executor().cache_counts();
  EXPECT_EQ(counts.computed + counts.reused, 9 * r.batch);
  EXPECT_EQ(one.model.count(0), 9) << "the first block of every step";
  for (int i = 1; i < 5; ++i) EXPECT_EQ(one.model.count(i), one.model.count(1)) << i;
  EXPECT_GT(one.model.count(4), 1);
  EXPECT_LT(one.model.count(4), 9);
  EXPECT_EQ(one.rank.executor().samples(), one.model.count(4) * r.batch);
}

TEST(CachedLoop, BranchesDecideForThemselves) {
  const c10::InferenceMode guard;
  NotingRank one;
  auto r = cached_request();
  r.batch = 1;
  one.rank.draw(r);
  EXPECT_EQ(one.model.count(0), 9);
  EXPECT_EQ(one.model.count(10), 9);
  EXPECT_EQ(one.rank.executor().cache_counts().computed, one.model.count(4) + one.model.count(14));
}

TEST(CachedLoop, AThresholdOfZeroDrawsTheSameBits) {
  const auto plain = drawn_by_toy(cached_setup(""), std::array{ToyRequest{.steps = 9}})[0];
  for (const bool graphs : {false, true}) {
    on_toy_ranks(cached_setup("", graphs), [&](ToyRank& rank, int) {
      EXPECT_TRUE(at::equal(rank.draw(cached_request(0)), plain));
      EXPECT_EQ(rank.executor().cache_counts().reused, 0);
      EXPECT_EQ(rank.executor().cache_counts().computed, 9 * 2 * 2);
      EXPECT_FALSE(at::equal(rank.draw(cached_request()), plain)) << "reuse shows";
      EXPECT_TRUE(at::equal(rank.draw({.steps = 9}), plain)) << "and is over";
      EXPECT_EQ(rank.executor().cache_counts().computed, 0);
    });
  }
}

TEST(CachedLoop, NothingIsKeptForTheNextRequest) {
  auto other = cached_request();
  other.seed = 2;
  for (const bool graphs : {false, true}) {
    const auto s = cached_setup("", graphs);
    const auto fresh = drawn_by_toy(s, std::array{other})[0];
    EXPECT_TRUE(at::equal(drawn_by_toy(s, std::array{cached_request(), other, other})[2], fresh));
  }
}

// Each picture is what it would be alone, also where only one of a pass may leave blocks out.
TEST(CachedLoop, PicturesDoNotDependOnTheirBatch) {
  bool has_mixed = false;
  for (const double threshold : {0.1, kSome, 0.5}) {
    auto r = cached_request(threshold);
    r.branches = 1;
    on_toy_ranks(cached_setup(""), [&](ToyRank& rank, int) {
      const auto both = rank.draw(r);
      const auto counts = rank.executor().cache_counts();
      StepCacheCounts sum;
      for (const int64_t i : {0, 1}) {
        auto alone = r;
        alone.only = i;
        EXPECT_LT(distance(rank.draw(alone), both.narrow(1, i, 1)), 1e-12) << threshold << ", picture " << i;
        const auto one = rank.executor().cache_counts();
        sum = {sum.computed + one.computed, sum.reused + one.reused};
        has_mixed = has_mixed || 2 * one.computed != counts.computed;
      }
      EXPECT_EQ(sum.computed, counts.computed) << threshold;
      EXPECT_EQ(sum.reused, counts.reused) << threshold;
    });
  }
  EXPECT_TRUE(has_mixed)
      << "some step must be decided one way for one picture and the other way for the other";
}

// Both branches as one batch decide for themselves too.
TEST(CachedLoop, BranchesInOnePassDrawTheSame) {
  for (const double threshold : {0.2, kSome, 0.6}) {
    const ToyRequest requests[] = {cached_request(threshold)};
    StepCacheCounts apart, joined;
    at::Tensor reference;
    on_toy_ranks(cached_setup(""), [&](ToyRank& rank, int) {
      reference = rank.draw(requests[0]);
      apart = rank.executor().cache_counts();
    });
    for (const bool graphs : {false, true}) {
      auto s = cached_setup("", graphs);
      s.joins_branches = true;
      on_toy_ranks(s, [&](ToyRank& rank, int) {
        EXPECT_LT(distance(rank.draw(requests[0]), reference), 1e-12) << threshold;
        EXPECT_TRUE(rank.executor().joined_branches());
        joined = rank.executor().cache_counts();
      });
      EXPECT_EQ(joined.computed, apart.computed) << threshold;
      EXPECT_EQ(joined.reused, apart.reused) << threshold;
    }
  }
}

// A long skip from the first block is read by the last one, in another graph.
TEST(CachedLoop, WorksWithLongSkips) {
  for (const bool graphs : {false, true}) {
    auto s = cached_setup("ulysses=2", graphs);
    s.model.has_skips = true;
    auto alone = cached_setup("");
    alone.model.has_skips = true;
    const ToyRequest requests[] = {cached_request(), cached_request(0)};
    const auto ours = drawn_by_toy(s, requests), one = drawn_by_toy(alone, requests);
    for (size_t i = 0; i < 2; ++i) EXPECT_LT(distance(ours[i], one[i]), 1e-11) << i << ", graphs " << graphs;
    EXPECT_TRUE(at::equal(one[1], drawn_by_toy(alone, std::array{ToyRequest{.steps = 9}})[0]));
    EXPECT_FALSE(at::equal(one[0], one[1]));
  }
}

TEST(CachedLoop, DrawsTheSameUnderEveryLayout) {
  std::vector<ToyRequest> requests{cached_request(), cached_request(0.2), cached_request(0.5)};
  requests[1].seed = 3, requests[2].seed = 4;
  auto uneven = cached_request();
  uneven.rows = 5, uneven.cols = 3, uneven.is_ancestral = true;
  requests.push_back(uneven);
  std::vector<at::Tensor> reference;
  std::vector<std::pair<int64_t, int64_t>> expected;
  const auto run = [&](const ToySetup& s, std::vector<at::Tensor>& drawn,
                       std::vector<std::pair<int64_t, int64_t>>& counts) {
    std::mutex mutex;
    on_toy_ranks(s, [&](ToyRank& rank, int number) {
      for (const auto& r : requests) {
        const auto picture = rank.draw(r);
        const auto c = rank.executor().cache_counts();
        const std::scoped_lock lock(mutex);
        if (number == 0) drawn.push_back(picture), counts.emplace_back(c.computed, c.reused);
      }
      if (rank.fake) EXPECT_EQ(rank.fake->fault, "");
    });
  };
  run(cached_setup(""), reference, expected);
  for (const auto& [computed, reused] : expected)
    EXPECT_TRUE(computed > 0 && reused > 0) << computed << " " << reused;
  for (const char* layout : {"data=1", "cfg=2", "ulysses=2", "kv_gather=2", "ring=3", "tensor=2",
                             "cfg=2, ulysses=2", "ulysses=2, ring=2", "ring=2, tensor=2"}) {
    for (const bool graphs : {false, true}) {
      std::vector<at::Tensor> drawn;
      std::vector<std::pair<int64_t, int64_t>> counts;
      run(cached_setup(layout, graphs), drawn, counts);
      ASSERT_EQ(drawn.size(), reference.size()) << layout;
      for (size_t i = 0; i < drawn.size(); ++i)
        EXPECT_LT(distance(drawn[i], reference[i]), 1e-11) << layout << ", graphs " << graphs << ", " << i;
      EXPECT_EQ(counts, expected) << layout << ", graphs " << graphs;
    }
  }
}

TEST(CachedLoop, ReplaysThreePiecesPerBranch) {
  on_toy_ranks(cached_setup("", true), [](ToyRank& rank, int) {
    for (const uint64_t seed : {1, 2, 3}) {
      auto r = cached_request(0.15);
      r.seed = seed;
      rank.draw(r);
    }
    EXPECT_EQ(rank.fake->fault, "");
    EXPECT_EQ(rank.executor().graphs(), 6)
        << "what leads to the decision, the rest, what is kept; two branches";
    EXPECT_EQ(rank.executor().kept_shapes(), 1u);
  });
}

TEST(CachedLoop, AnotherExpertIsComputedFirst) {
  auto s = cached_setup("");
  s.experts = 2;
  ToyRequest r{.steps = 8, .is_ancestral = true, .cache = first_block(1e9)};
  on_toy_ranks(s, [&](ToyRank& rank, int) {
    rank.draw(r);
    EXPECT_EQ(rank.executor().cache_counts().computed, 2 * 2 * 2) << "two experts, pictures and branches";
    EXPECT_EQ(rank.executor().cache_counts().reused, 6 * 2 * 2);
  });
}

TEST(CachedLoop, CanBeGivenUp) {
  on_toy_ranks(cached_setup("", true), [&](ToyRank& rank, int) {
    const auto whole = rank.draw(cached_request());
    EXPECT_NE(
        nn::error_of(Kind::kInterrupted,
                     [&] { rank.draw(cached_request(), {.may_begin = [](int step) { return step < 4; }}); }),
        "");
    EXPECT_TRUE(at::equal(rank.draw(cached_request()), whole));
  });
}

}  // namespace
}  // namespace atelier::pipeline
