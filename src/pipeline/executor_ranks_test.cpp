// The block loop with a small denoiser on one rank and on several: folded routes, kept shapes and graphs,
// samplers that draw noise, requests that are given up.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "pipeline/toy_for_test.h"

namespace atelier::pipeline {
namespace {

using nn::distance;
using nn::error_of;
using nn::has;

using ToySetup = ToyRank::ToySetup;

ToySetup setup(const std::string& layout, bool graphs = false) {
  return {.config = plan::parse_strategy(layout), .graphs = graphs};
}

// The same schedule on one rank.
ToySetup alone(const ToySetup& s) {
  ToySetup one = s;
  one.config = {};
  if (const int patches = plan::patch_count(s.config); patches > 1) {
    one.config.patches = patches;
    one.config.warmup = s.config.warmup;
    one.config.simulate = true;
  }
  one.graphs = false;
  one.route.clear();
  return one;
}

double farthest(const ToySetup& s, std::span<const ToyRequest> requests) {
  const auto ours = drawn_by_toy(s, requests), reference = drawn_by_toy(alone(s), requests);
  double most = 0;
  EXPECT_EQ(ours.size(), requests.size());
  for (size_t i = 0; i < std::min(ours.size(), reference.size()); ++i)
    most = std::max(most, distance(ours[i], reference[i]));
  return most;
}

// Folded routes.

const char* const kStages[] = {"data=1",
                               "pipefusion=2, sync",
                               "pipefusion=2",
                               "pipefusion=2, patches=3, warmup=0",
                               "pipefusion=4, sync",
                               "pipefusion=4",
                               "pipefusion=4, patches=5, warmup=2"};

TEST(FoldedRoute, DrawsWhatOneRankDraws) {
  const ToyRequest requests[] = {{.steps = 5}, {.steps = 3, .seed = 2}};
  for (const char* layout : kStages) {
    for (const int blocks : {8, 9}) {
      for (const bool graphs : {false, true}) {
        auto s = setup(layout, graphs);
        s.model.blocks = blocks;
        EXPECT_LT(farthest(s, requests), 1e-12) << layout << ", " << blocks << " blocks, graphs " << graphs;
      }
    }
  }
}

TEST(FoldedRoute, TogetherWithOtherAxes) {
  const ToyRequest requests[] = {{.steps = 4}};
  for (const char* layout : {"pipefusion=2, ulysses=2", "pipefusion=2, ring=2, sync", "cfg=2, pipefusion=2",
                             "pipefusion=2, tensor=2"}) {
    EXPECT_LT(farthest(setup(layout, true), requests), 1e-12) << layout;
  }
}

TEST(FoldedRoute, ReplaysItsGraphs) {
  on_toy_ranks(setup("pipefusion=2", true), [](ToyRank& rank, int) {
    for (const uint64_t seed : {1, 2, 3}) rank.draw({.steps = 4, .seed = seed});
    // two branches, whole and two patches; the first stage has two chunks
    EXPECT_EQ(rank.executor().graphs(), 12);
    EXPECT_GT(rank.fake->replays, 2 * rank.fake->recordings);
  });
}

TEST(FoldedRoute, ASkipFromAnotherStageIsFound) {
  auto s = setup("pipefusion=2");
  s.route = plan::straight(s.model.blocks, 2);
  std::string found;
  const auto draw = [&](comm::Transport& transport) {
    ToyRank rank(s, &transport);
    try {
      rank.draw({});
    } catch (const std::logic_error& e) {
      found = e.what();
      transport.abort();
    }
  };
  EXPECT_NE(parallel::testing::failure_of(2, draw), "") << "the other rank hears of it";
  EXPECT_TRUE(has(found, "skip_of_this_stage")) << found;
}

TEST(FoldedRoute, ASkipOutsideItsSlotIsFound) {
  ToySetup s{.model = {.keeps_by_reference = true}, .graphs = true};
  on_toy_ranks(s, [&](ToyRank& rank, int) {
    const auto drawn = rank.draw({});
    EXPECT_GT(distance(drawn, drawn_by_toy({}, std::array{ToyRequest{}})[0]), 1e-3)
        << "later blocks write into it";
    EXPECT_TRUE(has(rank.fake->fault, "still used")) << rank.fake->fault;
  });
}

TEST(FoldedRoute, ASlotThatMovedIsFound) {
  struct Moving : ToyDenoiser {
    using ToyDenoiser::ToyDenoiser;
    void block(int i, const nn::CallContext& call, nn::State& s) override {
      if (i == 0 && moves) s.skips.clear();
      ToyDenoiser::block(i, call, s);
    }
    bool moves = false;
  };
  const c10::InferenceMode guard;
  parallel::ParallelContext parallel({}, nullptr, nn::SdpaBackend::kMath);
  Moving model(parallel.denoiser(), {});
  nn::Resident memory;
  ToyRank rank({.graphs = true}, nullptr, {{&model, &memory}});
  rank.draw({});
  EXPECT_EQ(rank.fake->fault, "");
  model.moves = true;
  rank.draw({});
  EXPECT_NE(rank.fake->fault, "");
}

// Samplers.

TEST(Sampling, NoiseScalesAndExpertsAreTheSameOnEveryLayout) {
  const ToyRequest requests[] = {{.steps = 5, .is_ancestral = true},
                                 {.steps = 4, .seed = 3, .is_ancestral = true}};
  for (const char* layout :
       {"data=1", "cfg=2", "ulysses=2", "ulysses=4", "ring=2", "ring=3", "tensor=2", "pipefusion=2, sync",
        "pipefusion=2", "pipefusion=3, warmup=0", "pipefusion=2, ulysses=2", "cfg=2, ring=2", "kv_gather=3",
        "kv_gather=2, ulysses=2", "pipefusion=2, kv_gather=2", "cfg=2, kv_gather=2"}) {
    for (const bool graphs : {false, true}) {
      auto s = setup(layout, graphs);
      s.experts = 2;
      EXPECT_LT(farthest(s, requests), 1e-12) << layout << ", graphs " << graphs;
    }
  }
}

TEST(Sampling, EveryPartOfAStepMatters) {
  const auto drawn = [](const ToyRequest& r, int experts) {
    return drawn_by_toy({.experts = experts}, std::array{r})[0];
  };
  const ToyRequest plain{.is_ancestral = true};
  auto unguided = plain;
  unguided.guidance.scale = 1.5;
  EXPECT_GT(distance(drawn(plain, 2), drawn(plain, 1)), 1e-3) << "the second denoiser";
  EXPECT_GT(distance(drawn(plain, 1), drawn(unguided, 1)), 1e-3) << "the request's scale in the first steps";
}

TEST(Sampling, RescaledGuidanceIsTheSameOnEveryLayout) {
  ToyRequest r{.steps = 5};
  const auto plain = drawn_by_toy({}, std::array{r})[0];
  r.guidance.rescale = 0.7;
  auto uneven = r;  // ranks hold unequal parts of a patch
  uneven.rows = 5, uneven.cols = 3;
  const ToyRequest requests[] = {r, uneven};
  EXPECT_GT(distance(drawn_by_toy({}, requests)[0], plain), 1e-3);
  for (const char* layout : {"cfg=2", "ulysses=2", "ulysses=4", "ring=3", "tensor=2", "pipefusion=2, sync",
                             "pipefusion=2", "pipefusion=2, patches=3, warmup=0", "pipefusion=2, ulysses=2",
                             "pipefusion=2, ring=2", "cfg=2, ring=2", "kv_gather=2, ring=2"}) {
    EXPECT_LT(farthest(setup(layout), requests), 1e-11) << layout;
  }
  ToySetup flowing;
  flowing.config = {.patches = 3, .simulate = true};
  const auto change = [&](const ToyRequest& request) {
    return distance(drawn_by_toy(flowing, std::array{request})[0], drawn_by_toy({}, std::array{request})[0]);
  };
  auto unscaled = r;
  unscaled.guidance.rescale = 0;
  EXPECT_LT(change(r), 2 * change(unscaled)) << "stale moments add little to what stale keys change";
}

// Kept shapes.

TEST(KeptShapes, AlternateWithoutRecordingAgain) {
  std::vector<ToyRequest> requests;
  for (int round = 0; round < 4; ++round) {
    const auto seed = 10 + static_cast<uint64_t>(round);
    requests.push_back({.steps = 4 + round % 2, .seed = seed});
    requests.push_back({.rows = 6, .cols = 2, .steps = 4, .seed = seed});
    requests.push_back({.batch = 1, .steps = 5 - round % 2, .seed = seed});
    requests.push_back({.steps = 3, .branches = 1, .seed = seed});
    requests.push_back({.text = 7, .steps = 3, .seed = seed, .is_ancestral = true});
  }
  for (const char* layout : {"data=1", "pipefusion=2", "pipefusion=2, warmup=0", "ulysses=2", "cfg=2, ring=2",
                             "pipefusion=2, kv_gather=2"}) {
    const auto s = setup(layout, true);
    std::vector<at::Tensor> drawn, fresh;
    on_toy_ranks(s, [&](ToyRank& rank, int number) {
      int recorded = 0;
      for (size_t i = 0; i < requests.size(); ++i) {
        if (i == 10) recorded = rank.fake->recordings;
        const auto one = rank.draw(requests[i]);
        if (number == 0) drawn.push_back(one);
      }
      EXPECT_EQ(rank.fake->recordings, recorded) << layout;
      EXPECT_GT(rank.fake->replays, 4 * recorded) << layout;
      EXPECT_EQ(rank.executor().kept_shapes(), 5u);
    });
    for (const auto& r : requests) fresh.push_back(drawn_by_toy(alone(s), std::array{r})[0]);
    for (size_t i = 0; i < std::min(drawn.size(), fresh.size()); ++i)
      EXPECT_LT(distance(drawn[i], fresh[i]), 1e-12) << layout << ", request " << i;
  }
}

TEST(KeptShapes, MoreStepsThanThereIsRoomForAreRecordedAgain) {
  on_toy_ranks({.graphs = true}, [](ToyRank& rank, int) {
    rank.draw({.steps = 8});
    const int recorded = rank.fake->recordings;
    rank.draw({.steps = 2});
    EXPECT_EQ(rank.fake->recordings, recorded);
    const auto drawn = rank.draw({.steps = 9});
    EXPECT_EQ(rank.fake->recordings, 2 * recorded);
    EXPECT_LT(distance(drawn, drawn_by_toy({}, std::array{ToyRequest{.steps = 9}})[0]), 1e-12);
    rank.draw({.steps = 16});
    EXPECT_EQ(rank.fake->recordings, 2 * recorded);
    EXPECT_EQ(rank.executor().kept_shapes(), 1u);
    EXPECT_EQ(rank.fake->fault, "");
  });
}

TEST(KeptShapes, TheLeastRecentlyUsedGoesWhenTheBudgetIsSpent) {
  const ToyRequest small{.rows = 2, .cols = 2}, large{.rows = 8, .cols = 8}, other{.rows = 2, .cols = 3};
  on_toy_ranks({.graphs = true, .kept_bytes = 1}, [&](ToyRank& rank, int) {
    for (const auto& r : {small, large, small, other}) {
      EXPECT_LT(distance(rank.draw(r), drawn_by_toy({}, std::array{r})[0]), 1e-12);
      EXPECT_EQ(rank.executor().kept_shapes(), 1u);
    }
    EXPECT_EQ(rank.fake->fault, "");
  });
  on_toy_ranks({.config = {.patches = 2, .simulate = true}, .graphs = true, .kept_bytes = 100000},
               [&](ToyRank& rank, int) {
                 for (const auto& r : {small, other, large}) rank.draw(r);
                 EXPECT_LT(rank.executor().kept_shapes(), 3u);
                 EXPECT_GE(rank.executor().kept_shapes(), 1u);
               });
}

// A recording that fails.

TEST(Recording, ThatRunsOutOfMemoryLeavesNothingUnderWay) {
  // Fetches ahead, as weight shards do: what began inside a recording that failed must not be
  // waited for outside.
  struct Prefetcher : nn::Resident {
    FakeGraphs* fake = nullptr;
    int began_in = -1;  // recording in which the fetch under way began; -1: none under way
    int lost = 0, abandoned = 0;
    size_t left = 0;
    void settle() {
      if (began_in > 0 && began_in != fake->recording()) ++lost;
      began_in = -1;
    }
    void will_run(std::span<const int> blocks) override {
      settle();
      left = blocks.size();
      began_in = fake->recording();
    }
    void before(int) override {
      settle();
      if (--left > 0) began_in = fake->recording();
    }
    void abandon() noexcept override { settle(), ++abandoned; }
  };
  Prefetcher fetcher;
  const c10::InferenceMode guard;
  parallel::ParallelContext parallel({}, nullptr, nn::SdpaBackend::kMath);
  ToyDenoiser model(parallel.denoiser(), {});
  ToyRank rank({.graphs = true}, nullptr, {{&model, &fetcher}});
  fetcher.fake = rank.fake;
  const ToyRequest r{.steps = 4};
  rank.fake->allocations_left = 20;
  EXPECT_LT(distance(rank.draw(r), drawn_by_toy({}, std::array{r})[0]), 1e-12);
  EXPECT_EQ(fetcher.abandoned, 1);
  EXPECT_EQ(fetcher.lost, 0);
  EXPECT_EQ(rank.executor().graphs(), 1) << "of two branches one is recorded";
}

// Requests that are given up.

const char* const kLayouts[] = {"data=1",
                                "cfg=2",
                                "ulysses=2",
                                "ulysses=4",
                                "ring=2",
                                "ring=4",
                                "kv_gather=2",
                                "kv_gather=4",
                                "tensor=2",
                                "tensor=4",
                                "pipefusion=2",
                                "pipefusion=2, sync",
                                "pipefusion=4",
                                "pipefusion=4, sync",
                                "pipefusion=2, patches=4, warmup=0",
                                "cfg=2, ulysses=2",
                                "ulysses=2, ring=2",
                                "kv_gather=2, ulysses=2",
                                "tensor=2, ring=2",
                                "ulysses=4, shard=4",
                                "ring=2, kv_gather=2, shard=2",
                                "ulysses=4, parallel_vae",
                                "pipefusion=2, ulysses=2",
                                "pipefusion=2, ulysses=2, shard=2, parallel_vae",
                                "pipefusion=2, kv_gather=2",
                                "cfg=2, pipefusion=2, warmup=2"};

void expect_fresh_after_every_cancel(const ToySetup& s, const std::string& name) {
  constexpr int kSteps = 4;
  const ToyRequest given_up{.steps = kSteps, .seed = 5, .is_ancestral = true},
      next{.steps = kSteps, .seed = 6, .is_ancestral = true};
  const auto fresh = drawn_by_toy(s, std::array{next});
  ASSERT_EQ(fresh.size(), 1u) << name;
  on_toy_ranks(s, [&](ToyRank& rank, int number) {
    for (int end = 0; end <= kSteps; ++end) {
      std::vector<int> asked, passed;
      const StepCallbacks callbacks{.may_begin = [&](int step) { return asked.push_back(step), step < end; },
                                    .on_step = [&](int step) { passed.push_back(step); }};
      EXPECT_TRUE(has(error_of(Kind::kInterrupted, [&] { rank.draw(given_up, callbacks); }), "interrupted"))
          << name;
      EXPECT_EQ(asked.size(), static_cast<size_t>(end) + 1) << name;
      for (int i = 0; i <= end; ++i)
        EXPECT_EQ(asked[static_cast<size_t>(i)], i) << name << ": once each, in order";
      EXPECT_EQ(passed.size(), static_cast<size_t>(end)) << name;
      const auto drawn = rank.draw(next);
      if (number == 0) {
        EXPECT_TRUE(at::equal(drawn, fresh[0])) << name << ", given up before step " << end;
      }
    }
  });
}

TEST(Cancel, AtEveryStepUnderEveryLayoutLeavesNothingBehind) {
  for (const char* layout : kLayouts) {
    for (const bool skips : {true, false}) {
      auto s = setup(layout);
      s.model.has_skips = skips;
      expect_fresh_after_every_cancel(s, str(layout, skips ? ", folded" : ""));
    }
  }
}

TEST(Cancel, WithGraphsToo) {
  for (const char* layout :
       {"data=1", "ulysses=2", "pipefusion=2", "pipefusion=4, sync", "cfg=2, pipefusion=2"})
    expect_fresh_after_every_cancel(setup(layout, true), layout);
}

}  // namespace
}  // namespace atelier::pipeline
