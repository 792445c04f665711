// Schedules, played by the simulator: for every small shape they end under waiting sends and under
// devices that come to rest, read nothing early and keep the stages busy; and the simulator finds each
// kind of planted mistake.
#include "plan/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "plan/simulate.h"

namespace atelier::plan {
namespace {

using Lists = std::vector<std::vector<Op>>;

double utilisation(const std::vector<ModelChunk>& route, int patches, int steps, int warmup,
                   SendMode mode = SendMode::kPosted) {
  const Simulation played = simulate(route, schedule(route, patches, steps, warmup), {}, mode);
  EXPECT_EQ(played.fault, "");
  return played.utilisation();
}

std::string fault_of(const std::vector<ModelChunk>& route, const Lists& lists,
                     SendMode mode = SendMode::kRendezvous) {
  return simulate(route, lists, {}, mode).fault;
}

using Split = std::vector<ModelChunk> (*)(int blocks, int stages);
std::vector<ModelChunk> straight_split(int blocks, int stages) {
  return straight(blocks, stages);
}

// Plays the schedule of every number of blocks. Whether lists come to an end does not depend on durations, so
// equal lists of several numbers of blocks are played once.
void expect_ends(Split split, int stages, int patches, int steps, int warmup) {
  std::vector<Lists> played;
  for (int blocks = split == folded ? 2 * stages - 1 : stages; blocks <= 60; ++blocks) {
    const auto route = split(blocks, stages);
    Lists lists = schedule(route, patches, steps, warmup);
    if (std::find(played.rbegin(), played.rend(), lists) != played.rend()) continue;
    played.push_back(std::move(lists));
    for (const SendMode mode : {SendMode::kRendezvous, SendMode::kDrained}) {
      ASSERT_EQ(fault_of(route, played.back(), mode), "")
          << blocks << " blocks, " << route.size() << " chunks, " << patches << " patches, " << steps
          << " steps, warm-up " << warmup << (mode == SendMode::kDrained ? ", drained" : "");
    }
  }
}

void expect_every_shape_ends(Split split) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int patches = 1; patches <= 8; ++patches) {
      for (int steps = 1; steps <= 8; ++steps) {
        for (int warmup = 0; warmup <= steps; ++warmup) {
          ASSERT_NO_FATAL_FAILURE(expect_ends(split, stages, patches, steps, warmup));
        }
      }
    }
  }
}

// And so it does where a stage waits for all that it has under way before whatever it does next: memory may
// be given back to the device at any allocation, also where receives are posted.
TEST(Schedule, EveryStraightShapeEndsEvenWhenSendsWaitForTheirReceiver) {
  expect_every_shape_ends(straight_split);
}

TEST(Schedule, EveryFoldedShapeEndsEvenWhenSendsWaitForTheirReceiver) {
  expect_every_shape_ends(folded);
}

TEST(Schedule, EndsUnderTheOtherModesToo) {
  for (int blocks : {15, 16, 40, 57}) {
    for (int stages : {1, 2, 3, 5, 8}) {
      for (const auto& route : {straight(blocks, stages), folded(blocks, stages)}) {
        for (int patches = 1; patches <= 8; ++patches) {
          for (SendMode mode : {SendMode::kPosted, SendMode::kBuffered}) {
            ASSERT_EQ(fault_of(route, schedule(route, patches, 6, patches % 4), mode), "");
          }
        }
      }
    }
  }
}

TEST(Schedule, EndsForAnyCostsTheStagesReallyHave) {
  unsigned seed = 3;
  const auto random = [&] { return 0.1 + (seed = seed * 1664525u + 1013904223u) / 4294967296.0; };
  for (int round = 0; round < 300; ++round) {
    const int stages = 2 + round % 7, patches = 1 + round / 7 % 8;
    const auto route = round % 2 ? folded(40, stages) : straight(57, stages);
    Costs costs{.embed = random(), .head = random(), .sample = random(), .hop = random()};
    for (size_t chunk = 0; chunk < route.size(); ++chunk) costs.chunks.push_back(random());
    for (SendMode mode :
         {SendMode::kPosted, SendMode::kRendezvous, SendMode::kBuffered, SendMode::kDrained}) {
      ASSERT_EQ(simulate(route, schedule(route, patches, 4, 1), costs, mode).fault, "");
    }
  }
}

TEST(Schedule, StraightRouteFillsThePipelineOnceWhenPatchesCoverTheStages) {
  for (int stages : {1, 2, 3, 4, 6, 8}) {
    for (int patches : {8, 9, 16}) {
      const int steps = 28;
      const double fill = steps * patches, all = fill + stages - 1;
      for (SendMode mode : {SendMode::kPosted, SendMode::kRendezvous}) {
        EXPECT_NEAR(utilisation(straight(48, stages), patches, steps, 0, mode), fill / all, 1e-9);
      }
    }
  }
  EXPECT_GT(utilisation(straight(57, 4), 4, 200, 0), 0.94);  // 57 blocks over 4 stages: at most 57/60
}

TEST(Schedule, FewerPatchesThanStagesLeaveStagesIdle) {
  EXPECT_NEAR(utilisation(straight(40, 4), 2, 100, 0), 0.5, 0.01);
  EXPECT_NEAR(utilisation(straight(40, 8), 6, 100, 0), 0.75, 0.01);
}

TEST(Schedule, OnePatchAndWarmupAreThePlainLayerPipeline) {
  for (int stages : {2, 4, 8}) {
    EXPECT_NEAR(utilisation(straight(40, stages), 1, 6, 0), 1.0 / stages, 1e-9);
    EXPECT_NEAR(utilisation(straight(40, stages), 8, 6, 6), 1.0 / stages, 1e-9);
    EXPECT_NEAR(utilisation(folded(40, stages), 8, 6, 9), 1.0 / stages, 1e-9);
  }
  for (const auto& list : schedule(straight(8, 2), 1, 3, 0)) {
    for (const Op& op : list) EXPECT_EQ(op.patch, -1);
  }
}

TEST(Schedule, FoldedRouteIsAsBusyAsItsUnevenSplitAllows) {
  // (stages, patches) -> floor, at 40 blocks and 28 steps without warm-up; at 8 stages 20 pairs do not
  // divide, so 5/6 of the time is the most that any order could use, and 48 blocks show the order itself.
  EXPECT_GE(utilisation(folded(40, 2), 2, 28, 0), 0.98);
  EXPECT_GE(utilisation(folded(40, 2), 4, 28, 0), 0.99);
  EXPECT_GE(utilisation(folded(40, 4), 4, 28, 0), 0.97);
  EXPECT_GE(utilisation(folded(40, 4), 8, 28, 0), 0.98);
  EXPECT_GE(utilisation(folded(40, 8), 8, 28, 0), 0.96 * 5 / 6);
  EXPECT_GE(utilisation(folded(48, 8), 8, 28, 0), 0.96);
  EXPECT_GE(utilisation(folded(48, 8), 16, 28, 0), 0.96);
}

TEST(Schedule, OneOfFourStepsAsWarmupCostsWhatArithmeticSays) {
  // 2 stages, 2 patches: the whole step takes 2 units on each stage in turn, three steps of 2 patches take 6
  // + 1.
  EXPECT_NEAR(utilisation(straight(40, 2), 2, 4, 1), 8.0 / (4 + 7), 1e-9);
}

TEST(Schedule, TwoStagesTwoPatchesWrittenOut) {
  const auto lists = schedule(straight(2, 2), 2, 2, 1);
  const std::vector<Op> first{{Op::kEmbed, 0, -1, 0},   {Op::kRun, 0, -1, 0},    {Op::kSend, 0, -1, 0, 1},
                              {Op::kRecv, 1, -1, 0, 1}, {Op::kSample, 0, -1, 0}, {Op::kEmbed, 0, 0, 1},
                              {Op::kRun, 0, 0, 1},      {Op::kSend, 0, 0, 1, 1}, {Op::kEmbed, 0, 1, 1},
                              {Op::kRun, 0, 1, 1},      {Op::kSend, 0, 1, 1, 1}, {Op::kRecv, 1, 0, 1, 1},
                              {Op::kRecv, 1, 1, 1, 1},  {Op::kSample, 0, 0, 1},  {Op::kSample, 0, 1, 1}};
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(lists[0], first);
  EXPECT_EQ(lists[1].front(), (Op{Op::kRecv, 0, -1, 0, 0}));
  EXPECT_EQ(lists[1].back(), (Op{Op::kSend, 1, 1, 1, 0}));
}

// A request that is given up before step k: no rank begins an operation of step k or later.
TEST(Schedule, WithoutItsLastStepsItStillPairsSendsAndReceives) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int patches = 1; patches <= 8; ++patches) {
      for (const auto& route : {straight(17, stages), folded(17, stages)}) {
        for (const int warmup : {0, 1, 3}) {
          constexpr int kSteps = 5;
          const Lists whole = schedule(route, patches, kSteps, warmup);
          for (int end = 0; end <= kSteps; ++end) {
            Lists part = whole;
            for (auto& list : part) std::erase_if(list, [&](const Op& op) { return op.step >= end; });
            for (const SendMode mode :
                 {SendMode::kPosted, SendMode::kRendezvous, SendMode::kBuffered, SendMode::kDrained}) {
              ASSERT_EQ(fault_of(route, part, mode), "")
                  << stages << " stages, " << patches << " patches, warm-up " << warmup << ", until step "
                  << end;
            }
          }
        }
      }
    }
  }
}

// The executor asks before the first operation of each step: no rank may come to a step before it has seen
// the one before, and whatever it has not begun may be left out.
TEST(Schedule, EveryStageMeetsTheStepsInOrder) {
  for (const auto& route : {straight(17, 4), folded(17, 4), straight(17, 8), folded(17, 8)}) {
    for (int patches = 1; patches <= 8; ++patches) {
      for (const auto& list : schedule(route, patches, 6, 1)) {
        int begun = -1;
        for (const Op& op : list) {
          EXPECT_LE(op.step, begun + 1);
          begun = std::max(begun, op.step);
        }
        EXPECT_EQ(begun, 5);
      }
    }
  }
}

TEST(Schedule, DirectionsAreTheHopsOfTheRoute) {
  EXPECT_EQ(directions(straight(9, 3)), (std::vector<Direction>{{0, 1}, {1, 2}, {2, 0}}));
  EXPECT_EQ(directions(folded(12, 3)), (std::vector<Direction>{{0, 1}, {1, 2}, {2, 1}, {1, 0}}));
  EXPECT_TRUE(directions(straight(9, 1)).empty());
}

// The planted mistakes.

Op& find(Lists& lists, Op::Code kind, int chunk, int patch, int step) {
  for (auto& list : lists) {
    for (Op& op : list) {
      if (op.kind == kind && op.chunk == chunk && op.patch == patch && op.step == step) return op;
    }
  }
  throw std::logic_error("no such operation");
}

void drop(Lists& lists, Op::Code kind, int chunk, int patch, int step) {
  const Op target = find(lists, kind, chunk, patch, step);
  for (auto& list : lists) std::erase(list, target);
}

TEST(Simulator, SendsBeforeReceivesDeadlockOnlyWhenSendsWait) {
  // Both stages send their second patch before they take the other's: the order that hung in a trial.
  const std::vector<ModelChunk> route = straight(4, 2);
  const Lists lists{{{Op::kEmbed, 0, 0, 0},
                     {Op::kRun, 0, 0, 0},
                     {Op::kSend, 0, 0, 0, 1},
                     {Op::kEmbed, 0, 1, 0},
                     {Op::kRun, 0, 1, 0},
                     {Op::kSend, 0, 1, 0, 1},
                     {Op::kRecv, 1, 0, 0, 1},
                     {Op::kSample, 0, 0, 0},
                     {Op::kRecv, 1, 1, 0, 1},
                     {Op::kSample, 0, 1, 0}},
                    {{Op::kRecv, 0, 0, 0, 0},
                     {Op::kRun, 1, 0, 0},
                     {Op::kHead, 1, 0, 0},
                     {Op::kSend, 1, 0, 0, 0},
                     {Op::kRecv, 0, 1, 0, 0},
                     {Op::kRun, 1, 1, 0},
                     {Op::kHead, 1, 1, 0},
                     {Op::kSend, 1, 1, 0, 0}}};
  EXPECT_EQ(fault_of(route, lists, SendMode::kPosted), "");
  EXPECT_EQ(fault_of(route, lists, SendMode::kBuffered), "");
  const std::string fault = fault_of(route, lists, SendMode::kRendezvous);
  EXPECT_NE(fault.find("deadlock: stage 0 waits in operation 5 (send chunk 0 patch 1"), std::string::npos)
      << fault;
  const std::string drained = fault_of(route, lists, SendMode::kDrained);
  EXPECT_NE(drained.find("deadlock: stage 0 waits in operation 6 (recv chunk 1 patch 0"), std::string::npos)
      << drained;
}

// Both stages post their receive before they have sent what the other waits for: what only a device
// at rest forbids.
TEST(Simulator, ReceivesAheadOfTheirSendsDeadlockOnlyWhereDevicesComeToRest) {
  const std::vector<ModelChunk> route = straight(4, 2);
  const Lists lists{
      {{Op::kRecv, 1, -1, 0, 1},
       {Op::kEmbed, 0, -1, 0},
       {Op::kRun, 0, -1, 0},
       {Op::kSend, 0, -1, 0, 1},
       {Op::kSample, 0, -1, 0}},
      {{Op::kRecv, 0, -1, 0, 0}, {Op::kRun, 1, -1, 0}, {Op::kHead, 1, -1, 0}, {Op::kSend, 1, -1, 0, 0}}};
  EXPECT_EQ(fault_of(route, lists, SendMode::kPosted), "");
  const std::string fault = fault_of(route, lists, SendMode::kDrained);
  EXPECT_NE(fault.find("deadlock: stage 0 waits in operation 1 (embed"), std::string::npos) << fault;
}

TEST(Simulator, FindsReadsOfWhatIsNotThere) {
  const auto route = straight(6, 3);
  const Lists good = schedule(route, 3, 3, 1);
  ASSERT_EQ(fault_of(route, good), "");
  const auto expect_fault = [&](const char* words, auto plant) {
    Lists bad = good;
    plant(bad);
    const std::string fault = fault_of(route, bad);
    EXPECT_NE(fault.find(words), std::string::npos) << fault;
  };
  expect_fault("before its embed", [](Lists& l) { drop(l, Op::kEmbed, 0, 1, 2); });
  expect_fault("before its last step was sampled", [](Lists& l) { drop(l, Op::kSample, 0, 1, 1); });
  expect_fault("before its receive was started", [](Lists& l) {
    drop(l, Op::kRecv, 0, 1, 1);
    drop(l, Op::kSend, 0, 1, 1);
  });
  expect_fault("stands before what it sends", [](Lists& l) { drop(l, Op::kHead, 2, 0, 1); });
  expect_fault("did not sample everything", [](Lists& l) { drop(l, Op::kSample, 0, 2, 2); });
  expect_fault("deadlock", [](Lists& l) { drop(l, Op::kSend, 2, 2, 2); });
  expect_fault("names a wrong peer", [](Lists& l) { find(l, Op::kSend, 1, 2, 2).peer_stage = 0; });
  expect_fault("list of another stage", [](Lists& l) { l[1].push_back({Op::kRun, 0, 0, 0}); });
}

TEST(Simulator, FindsWrongOrder) {
  const auto route = straight(6, 2);
  Lists swapped = schedule(route, 2, 2, 0);
  std::swap(find(swapped, Op::kRecv, 0, 0, 1), find(swapped, Op::kRecv, 0, 1, 1));
  EXPECT_NE(fault_of(route, swapped).find("meets another message"), std::string::npos);

  Lists reversed = schedule(route, 2, 1, 0);
  for (auto& list : reversed) {
    for (Op& op : list) op.patch = 1 - op.patch;
  }
  EXPECT_NE(fault_of(route, reversed).find("breaks the order"), std::string::npos);
}

TEST(Simulator, FindsSlotsThatAreReusedTooEarly) {
  const auto route = straight(6, 2);
  Lists twice = schedule(route, 2, 1, 0);
  const Op again = find(twice, Op::kRecv, 0, 0, 0);
  twice[1].insert(twice[1].begin(), again);
  EXPECT_NE(fault_of(route, twice, SendMode::kPosted).find("overwrites a message that nobody has read"),
            std::string::npos);
}

TEST(Simulator, HopTimeDelaysOnlyTheReader) {
  const auto route = straight(2, 2);
  const auto lists = schedule(route, 2, 50, 0);
  const auto makespan = [&](double hop, SendMode mode) {
    return simulate(route, lists, {.hop = hop}, mode).makespan;
  };
  const double without = makespan(0, SendMode::kPosted);
  EXPECT_GT(makespan(0.2, SendMode::kPosted), without);
  EXPECT_LT(makespan(0.2, SendMode::kPosted), makespan(0.2, SendMode::kRendezvous) + 1e-9);
}

}  // namespace
}  // namespace atelier::plan
