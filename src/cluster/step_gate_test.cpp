// The agreement about the last step of a cancelled batch: on its own, and among ranks that run ahead.
#include "cluster/step_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <random>
#include <thread>
#include <vector>

namespace atelier::cluster {
namespace {

using namespace std::chrono_literals;

TEST(StepGate_StepsBegin, WhenNobodyCancels) {
  StepGate gate;
  gate.open(1);
  EXPECT_EQ(gate.begun(), -1);
  for (int step = 0; step <= 4; ++step) EXPECT_TRUE(gate.may_begin(step));
  EXPECT_EQ(gate.begun(), 4);
}

TEST(StepGate_AHeldStepWaits, ForTheVerdict) {
  StepGate gate;
  gate.open(7);
  ASSERT_TRUE(gate.may_begin(0));
  EXPECT_EQ(gate.hold(7), 0);
  auto next = std::async(std::launch::async, [&] { return gate.may_begin(1); });
  EXPECT_EQ(next.wait_for(20ms), std::future_status::timeout);
  gate.stop_before(7, 2);  // a peer had begun step 1
  EXPECT_TRUE(next.get());
  EXPECT_FALSE(gate.may_begin(2));
  EXPECT_FALSE(gate.may_begin(3));
}

TEST(StepGate_ABatchIsCancelled, BeforeThisRankBegins) {
  StepGate gate;
  gate.open(1);
  EXPECT_EQ(gate.hold(2), -1);
  EXPECT_TRUE(gate.may_begin(0));  // another batch
  gate.close();
  gate.stop_before(2, 0);
  gate.open(2);
  EXPECT_FALSE(gate.may_begin(0));
}

TEST(StepGate_ABatchThatIsOver, IsNotHeldAndHoldsNothing) {
  StepGate gate;
  gate.open(3);
  EXPECT_TRUE(gate.may_begin(0));
  gate.close();
  EXPECT_EQ(gate.hold(3), StepGate::kAllBegun);
  EXPECT_EQ(gate.hold(2), StepGate::kAllBegun);
  gate.stop_before(3, StepGate::kAllBegun);
  gate.open(4);
  EXPECT_TRUE(gate.may_begin(0));
  EXPECT_EQ(gate.hold(4), 0);
  gate.stop_before(4, 1);
  EXPECT_FALSE(gate.may_begin(1));
}

// Ranks whose steps need all peers' same step, at most two steps ahead; a cancel at a random moment.
TEST(StepGate_RanksStopAtTheSameStep, WheneverTheCancelComes) {
  constexpr int kRanks = 4, kSteps = 12;
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<StepGate> gates(kRanks);
    std::vector<std::atomic<int>> done(kRanks);  // steps given to the peers
    std::vector<int> drawn(kRanks);
    std::atomic<int> stopped_at{-1};
    const auto when = std::chrono::microseconds(random() % 400);
    std::vector<std::thread> ranks;
    for (int r = 0; r < kRanks; ++r) {
      gates[r].open(1);
      ranks.emplace_back([&, r] {
        for (int step = 0; step <= kSteps && gates[r].may_begin(step); ++step) {
          done[r] = step + 1;
          // as a device would: this step's result is there when all peers have begun the one before the last
          const auto is_fed = [&](const auto& d) { return d >= step - 1; };
          while (!std::all_of(done.begin(), done.end(), is_fed)) std::this_thread::yield();
          drawn[r] = step + 1;
        }
        gates[r].close();
      });
    }
    std::this_thread::sleep_for(when);
    int furthest = -1;
    for (auto& gate : gates) furthest = std::max(furthest, gate.hold(1));
    stopped_at = furthest == StepGate::kAllBegun ? StepGate::kAllBegun : furthest + 1;
    for (auto& gate : gates) gate.stop_before(1, stopped_at);
    for (auto& rank : ranks) rank.join();
    for (const int d : drawn) EXPECT_EQ(d, std::min(stopped_at.load(), kSteps + 1)) << trial;
  }
}

}  // namespace
}  // namespace atelier::cluster
