#include "server/batcher.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/error.h"

namespace atelier::server {
namespace {

WaitingPicture picture(const std::string& job, int steps = 4, double since = 0, int priority = 0) {
  request::Request r;
  r.prompt = job;
  r.width = r.height = 64;
  r.num_inference_steps = steps;
  return {.job = job, .priority = priority, .since = since, .request = r};
}

std::string jobs_of(const std::vector<WaitingPicture>& batch) {
  std::string out;
  for (const auto& p : batch) out += p.job;
  return out;
}

TEST(Batcher_EqualShapesAreDrawnTogether, OldestFirst) {
  Batcher b({.most = 3});
  for (const char* job : {"a", "b", "c", "d"}) b.add(picture(job, job == std::string("b") ? 5 : 4));
  EXPECT_EQ(jobs_of(b.next(0)), "acd");
  EXPECT_EQ(jobs_of(b.next(0)), "b");
  EXPECT_EQ(jobs_of(b.next(0)), "");
  for (int i = 0; i < 5; ++i) b.add(picture(std::string(1, static_cast<char>('a' + i))));
  EXPECT_EQ(jobs_of(b.next(0)), "abc");
  EXPECT_EQ(jobs_of(b.next(0)), "de");
}

TEST(Batcher_PrioritiesComeFirst, UntilTheOthersHaveWaitedLong) {
  Batcher b({.most = 1});
  b.add(picture("low", 4, 0, 0));
  b.add(picture("high", 4, 10, 2));
  EXPECT_EQ(jobs_of(b.next(10)), "high");
  b.add(picture("late", 4, 70, 2));
  EXPECT_EQ(jobs_of(b.next(70)), "low");  // 70 s are worth more than two
}

TEST(Batcher_APictureWaitsForOthers, AtMostItsTime) {
  Batcher b({.most = 2, .wait_s = 0.5});
  b.add(picture("a", 4, 1));
  EXPECT_TRUE(b.next(1.2).empty());
  EXPECT_EQ(b.ripe_at(1.2), 1.5);
  EXPECT_EQ(b.ripe_at(1.5), std::nullopt) << "it waits for something else";
  b.add(picture("b", 4, 1.3));
  EXPECT_EQ(jobs_of(b.next(1.3)), "ab");  // full
  b.add(picture("c", 4, 2));
  EXPECT_EQ(jobs_of(b.next(2.5)), "c");
}

TEST(Batcher_OneThatWaitsForOthersDoesNotHoldUp, AFullBatch) {
  Batcher b({.most = 2, .wait_s = 5});
  b.add(picture("a", 9, 0));
  b.add(picture("b", 4, 1));
  b.add(picture("c", 4, 1));
  EXPECT_EQ(jobs_of(b.next(1)), "bc");
  EXPECT_TRUE(b.next(1).empty());
}

TEST(Batcher_WhatWasDrawnInVain, ComesFirstAgain) {
  Batcher b({.most = 1});
  b.add(picture("a"));
  b.add(picture("b"));
  b.add_first(picture("again"));
  EXPECT_EQ(jobs_of(b.next(0)), "again");
}

TEST(Batcher_JobsAtOnce, AreLimited) {
  Batcher b({.most = 4, .jobs_at_once = 1});
  b.add(picture("a"));
  b.add(picture("b"));
  b.add(picture("a"));
  EXPECT_EQ(jobs_of(b.next(0)), "aa");
  EXPECT_TRUE(b.next(0, {"a"}).empty());
  EXPECT_EQ(jobs_of(b.next(0)), "b");
}

// It is asked at every turn of the queue.
TEST(Batcher_ManyThatFitNothingElse, AreLookedThroughQuickly) {
  Batcher b({.most = 2, .wait_s = 1e9});
  constexpr int kPictures = 8000;
  for (int i = 0; i < kPictures; ++i) b.add(picture(str(i), i + 1));
  const auto begin = std::chrono::steady_clock::now();
  for (int turn = 0; turn < 5; ++turn) EXPECT_TRUE(b.next(1).empty());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  b.add(picture("late", kPictures));
  EXPECT_EQ(jobs_of(b.next(1)), str(kPictures - 1, "late"));
}

TEST(Batcher_RemoveTakesAllPictures, OfAJob) {
  Batcher b({.most = 4});
  b.add(picture("a"));
  b.add(picture("b"));
  b.add(picture("a"));
  EXPECT_EQ(b.remove("a"), 2);
  EXPECT_EQ(b.size(), 1u);
  const auto left = b.before(0, 0);
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].steps, 4);
  EXPECT_EQ(left[0].work, 64 * 64);
}

TEST(Batcher_WhatIsBeforeANewcomer, IsWhatIsAsUrgent) {
  Batcher b({.most = 2});
  for (const int priority : {0, 0, 0, 5}) b.add(picture("a", 4 + priority, 0, priority));
  EXPECT_EQ(b.before(-3, 0).size(), 3u);
  EXPECT_EQ(b.before(0, 0).size(), 3u);
  EXPECT_EQ(b.before(1, 0).size(), 1u);
  EXPECT_EQ(b.before(1, 2 * Batcher::kAging).size(), 3u) << "they have waited long";
  EXPECT_EQ(b.before(9, 0).size(), 0u);
}

}  // namespace
}  // namespace atelier::server
