// The queue around an engine that draws nothing: nothing is lost, nothing is drawn for nobody,
// everybody is answered.
#include "server/dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <future>

#include "base/error.h"
#include "server/api_error.h"
#include "server/desk_for_test.h"

namespace atelier::server {
namespace {

using namespace std::chrono_literals;

TEST(Dispatcher_DrawsAJob, AndKeepsItsPictures) {
  Desk desk;
  const Waiter waiter;
  const auto record = desk.record("a fox", 3);
  EXPECT_EQ(desk.dispatcher->submit(record, waiter.listener()), record.id);
  const auto ended = waiter.wait();
  EXPECT_EQ(ended.record.state, JobState::kDone);
  EXPECT_EQ(ended.pictures, (std::vector<std::string>{"a fox 7", "a fox 8", "a fox 9"}));
  EXPECT_EQ(ended.steps, 2);
  wait_until([&] {
    const auto stored = desk.store->find(record.id);
    return stored && stored->state == JobState::kDone;
  });
  EXPECT_EQ(desk.dispatcher->picture(*desk.dispatcher->find(record.id), 2), "a fox 9");
  desk.stop();
  // and so it is for the next process
  desk.start({});
  const auto kept = desk.dispatcher->find(record.id);
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->pictures.size(), 3u);
  EXPECT_EQ(desk.dispatcher->picture(*kept, 1), "a fox 8");
}

TEST(Dispatcher_GoesOnAfterARestart, WithWhatWasAccepted) {
  Desk desk({.step_time = 50ms});
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    std::promise<void> accepted;
    ids.push_back(desk.dispatcher->submit(desk.record(str("picture ", i)), [&](const JobEvent& e) {
      if (e.kind == JobEvent::kAccepted) accepted.set_value();
    }));
    accepted.get_future().wait();
  }
  desk.stop();  // as if it had been killed: nothing was drained
  desk.start({});
  for (size_t i = 0; i < ids.size(); ++i) {
    const Waiter waiter;
    ASSERT_NE(desk.dispatcher->listen(ids[i], waiter.listener()), 0);
    const auto ended = waiter.wait();
    EXPECT_EQ(ended.record.state, JobState::kDone);
    EXPECT_EQ(ended.pictures, std::vector{str("picture ", i, " 7")});
  }
}

TEST(Dispatcher_BatchesWhatFits, OfSeveralJobs) {
  Desk desk({.step_time = 20ms});
  std::vector<Waiter> waiters(5);
  desk.dispatcher->submit(desk.record("first", 1, 30), waiters[0].listener());
  wait_until([&] {
    const std::scoped_lock lock(desk.seen.mutex);
    return desk.seen.batches.size() == 1;
  });
  for (int i = 1; i < 5; ++i)
    desk.dispatcher->submit(desk.record(str("other ", i), 1, i == 4 ? 5 : 2),
                            waiters[static_cast<size_t>(i)].listener());
  for (const auto& waiter : waiters) EXPECT_EQ(waiter.wait().record.state, JobState::kDone);
  const std::scoped_lock lock(desk.seen.mutex);
  ASSERT_EQ(desk.seen.batches.size(), 3u);
  EXPECT_EQ(desk.seen.batches[1].size(), 3u);  // those of two steps
  EXPECT_EQ(desk.seen.batches[2].size(), 1u);
}

TEST(Dispatcher_APictureWaitsForOthers, AsLongAsItIsToldAndNoLonger) {
  Desk desk({}, {.batch = {.most = 4, .wait_s = 0.02}});
  double least = 1;
  for (int i = 0; i < 10; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const Waiter waiter;
    desk.dispatcher->submit(desk.record("alone", 1, 1), waiter.listener(), Acceptance::kAtOnce);
    waiter.wait();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    EXPECT_GE(took, 0.02);
    least = std::min(least, took);
  }
  EXPECT_LT(least, 0.08);
}

TEST(Dispatcher_CancelsAWaitingJob, WithoutTheEngine) {
  Desk desk({.step_time = 30ms}, {.batch = {.most = 1}});
  const Waiter first, second;
  desk.dispatcher->submit(desk.record("first", 1, 4), first.listener());
  const auto id = desk.dispatcher->submit(desk.record("second"), second.listener());
  EXPECT_TRUE(desk.dispatcher->cancel(id));
  EXPECT_EQ(second.wait().record.state, JobState::kCancelled);
  EXPECT_EQ(first.wait().record.state, JobState::kDone);
  EXPECT_FALSE(desk.dispatcher->cancel(id));
  EXPECT_FALSE(desk.dispatcher->cancel("job_unknown"));
}

TEST(Dispatcher_CancelStopsABatch, OnlyWhenNobodyElseIsInIt) {
  Desk desk({.step_time = 20ms});
  const Waiter blocker, a, b, alone;
  desk.dispatcher->submit(desk.record("blocker", 1, 30), blocker.listener());
  wait_until([&] {
    const std::scoped_lock lock(desk.seen.mutex);
    return desk.seen.batches.size() == 1;
  });
  const auto id = desk.dispatcher->submit(desk.record("a", 1, 20), a.listener());
  desk.dispatcher->submit(desk.record("b", 1, 20), b.listener());
  blocker.wait();
  wait_until([&] { return *a.steps > 1; });
  desk.dispatcher->cancel(id);
  EXPECT_EQ(a.wait().record.state, JobState::kCancelled);
  EXPECT_EQ(b.wait().pictures, std::vector<std::string>{"b 7"});
  EXPECT_TRUE(desk.seen.cancelled.empty());
  const auto last = desk.dispatcher->submit(desk.record("alone", 1, 1000), alone.listener());
  wait_until([&] { return *alone.steps > 0; });
  desk.dispatcher->cancel(last);
  EXPECT_EQ(alone.wait().record.state, JobState::kCancelled);
  wait_until([&] {
    const std::scoped_lock lock(desk.seen.mutex);
    return desk.seen.cancelled.size() == 1;
  });
}

TEST(Dispatcher_ABrokenEngineIsStartedAgain, AndNothingIsLost) {
  Desk desk({.breaks_at = 2});
  std::vector<Waiter> waiters(3);
  for (size_t i = 0; i < waiters.size(); ++i)
    desk.dispatcher->submit(desk.record(str("p", i), 1, static_cast<int>(2 + i)), waiters[i].listener());
  for (const auto& waiter : waiters) EXPECT_EQ(waiter.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_AnEngineThatIsStartedAgain, HasAllItsGroups) {
  Desk desk({.groups = 2, .step_time = 20ms, .breaks_at = 1, .loses = 1}, {.batch = {.most = 1}});
  for (const char* prompt : {"a", "b"}) desk.dispatcher->submit(desk.record(prompt, 1, 100), nullptr);
  wait_until([&] { return desk.dispatcher->status().at("open_batches") == 2; });
}

TEST(Dispatcher_AFailedPictureFailsItsJob, WithoutAWordOfThisMachine) {
  Desk desk({.fails = "bad"});
  const Waiter bad, good;
  desk.dispatcher->submit(desk.record("bad", 2), bad.listener());
  desk.dispatcher->submit(desk.record("good"), good.listener());
  const auto ended = bad.wait();
  EXPECT_EQ(ended.record.state, JobState::kFailed);
  EXPECT_EQ(ended.record.error_status, 500);
  EXPECT_EQ(to_json(ended.record).dump().find("/secret"), std::string::npos);
  EXPECT_EQ(good.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_MemoryThatIsShort, IsWaitedFor) {
  Desk desk({.finds_no_memory = 3});
  const Waiter both, other;
  desk.dispatcher->submit(desk.record("both", 2), both.listener());
  desk.dispatcher->submit(desk.record("other"), other.listener());
  EXPECT_EQ(both.wait().pictures, (std::vector<std::string>{"both 7", "both 8"}));
  EXPECT_EQ(other.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_AFullQueueRefuses, WithATimeToComeBack) {
  Desk desk({.step_time = 50ms}, {.batch = {.most = 1}, .max_queue = 2, .max_per_owner = 4});
  std::vector<Waiter> waiters(3);
  desk.dispatcher->submit(desk.record("0", 1, 100), waiters[0].listener());
  wait_until([&] { return *waiters[0].steps > 0; });
  desk.dispatcher->submit(desk.record("1"), nullptr);
  desk.dispatcher->submit(desk.record("2"), nullptr);
  try {
    desk.dispatcher->submit(desk.record("3"), nullptr);
    ADD_FAILURE() << "it was taken";
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 429);
    EXPECT_EQ(e.code, "queue_full");
    EXPECT_GE(e.retry_after_s, 1);
    EXPECT_NE(std::string(e.what()).find("max_queue 2"), std::string::npos);
  }
}

TEST(Dispatcher_AJobThatTakesTooLongIsGivenUp, AtItsDeadline) {
  Desk desk({.step_time = 50ms});
  const Waiter waiter;
  auto record = desk.record("slow", 1, 1000);
  record.timeout = 0.3;
  desk.dispatcher->submit(std::move(record), waiter.listener());
  const auto ended = waiter.wait();
  EXPECT_EQ(ended.record.state, JobState::kFailed);
  EXPECT_EQ(ended.record.error_status, 504);
}

TEST(Dispatcher_TimeInWhichNoServerRan, DoesNotCount) {
  Desk desk({.step_time = 50ms});
  std::promise<void> accepted;
  auto record = desk.record("a fox", 1, 100);
  record.created = unix_time() - 3600;  // or the clock was set
  record.timeout = 10;
  const auto id = desk.dispatcher->submit(record, [&](const JobEvent& e) {
    if (e.kind == JobEvent::kAccepted) accepted.set_value();
  });
  accepted.get_future().wait();
  desk.start({.step_time = 1ms});
  const Waiter waiter;
  ASSERT_NE(desk.dispatcher->listen(id, waiter.listener()), 0);
  EXPECT_EQ(waiter.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_ADeadlineThatCannotBeMetIsRefused, OnceCostsAreKnown) {
  Desk desk({.step_time = 30ms});
  const Waiter waiter;
  desk.dispatcher->submit(desk.record("first", 1, 4), waiter.listener());
  waiter.wait();
  auto record = desk.record("long", 1, 1000);  // about 30 s
  record.timeout = 2;
  try {
    desk.dispatcher->submit(std::move(record), nullptr);
    ADD_FAILURE() << "it was taken";
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    EXPECT_EQ(e.param, "timeout");
  }
  const std::scoped_lock lock(desk.seen.mutex);
  EXPECT_EQ(desk.seen.batches.size(), 1u);
}

TEST(Dispatcher_ADeadline_CountsWholePictures, OfGroupsThatAreLeft) {
  for (const int lost : {0, 3}) {
    Desk desk({.groups = 4, .step_time = 5ms, .loses = lost}, {.batch = {.most = 1}});
    const Waiter waiter;
    desk.dispatcher->submit(desk.record("first", 1, 4), waiter.listener());
    waiter.wait();
    const auto status = [&](int pictures, double share) {
      auto record = desk.record("long", pictures, 100);
      record.timeout =
          share * desk.dispatcher->costs().seconds(BatchWork(record.requests)).value() / pictures;
      try {
        desk.dispatcher->cancel(desk.dispatcher->submit(std::move(record), nullptr));
      } catch (const ApiError& e) {
        return e.status;
      }
      wait_until([&] { return desk.dispatcher->status().at("open_batches") == 0; });
      return 200;
    };
    EXPECT_EQ(status(1, 0.7), 400) << "no other group can help with it";
    EXPECT_EQ(status(1, 1.5), 200);
    EXPECT_EQ(status(2, 1.5), lost > 0 ? 400 : 200);
    EXPECT_EQ(status(5, 1.5), 400);
    EXPECT_EQ(status(5, 2.5), lost > 0 ? 400 : 200);
  }
}

// Who is more urgent than what waits does not wait for it, and a probe is asked of a full server above all.
TEST(Dispatcher_WhatWaitsIsNoReason, ToRefuseWhatComesBeforeIt) {
  Desk desk({.step_time = 5ms}, {.batch = {.most = 1}, .max_queue = 3});
  const Waiter first, open, probe;
  desk.dispatcher->submit(desk.record("first", 1, 4), first.listener());
  first.wait();
  desk.dispatcher->submit(desk.record("open", 1, 400), open.listener());
  wait_until([&] { return *open.steps > 0; });
  desk.dispatcher->submit(desk.record("long", 1, 10000), nullptr);  // about 50 s
  const auto status = [&](int priority) {
    auto record = desk.record("short", 1, 2);
    record.timeout = 5, record.priority = priority;
    try {
      desk.dispatcher->submit(std::move(record), nullptr);
      return 200;
    } catch (const ApiError& e) {
      return e.status;
    }
  };
  EXPECT_EQ(status(-1), 429);
  EXPECT_EQ(status(1), 200);
  EXPECT_EQ(status(1), 200);
  EXPECT_EQ(status(1), 429) << "max_queue";
  auto record = desk.record("probe", 1, 1);
  record.kind = "health", record.priority = 100, record.timeout = 5;
  desk.dispatcher->submit(std::move(record), probe.listener());
  EXPECT_EQ(probe.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_OneIdempotencyKeyIsOneJob, AlsoAfterARestart) {
  Desk desk;
  const Waiter waiter;
  auto record = desk.record("once");
  record.idempotency = "key-1";
  const auto id = desk.dispatcher->submit(record, waiter.listener());
  waiter.wait();
  auto again = desk.record("once");
  again.idempotency = "key-1";
  EXPECT_EQ(desk.dispatcher->submit(again), id);
  wait_until([&] { return desk.store->find(id)->state == JobState::kDone; });
  desk.start({});
  EXPECT_EQ(desk.dispatcher->submit(again), id);
  auto other = desk.record("something else");
  other.idempotency = "key-1";
  try {
    desk.dispatcher->submit(other);
    ADD_FAILURE() << "it was taken";
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 422);
  }
}

TEST(Dispatcher_DrainFinishesWhatIsDrawn, AndKeepsWhatWaits) {
  Desk desk({.step_time = 20ms}, {.batch = {.most = 1}});
  const Waiter drawn, waiting;
  desk.dispatcher->submit(desk.record("drawn", 1, 10), drawn.listener());
  wait_until([&] { return *drawn.steps > 0; });
  const auto id = desk.dispatcher->submit(desk.record("waiting"), waiting.listener());
  desk.dispatcher->drain(10s);
  EXPECT_EQ(drawn.wait().record.state, JobState::kDone);
  EXPECT_TRUE(waiting.wait().is_interrupted);
  EXPECT_THROW(desk.dispatcher->submit(desk.record("late")), ApiError);
  desk.start({});
  const Waiter resumed;
  ASSERT_NE(desk.dispatcher->listen(id, resumed.listener()), 0);
  EXPECT_EQ(resumed.wait().record.state, JobState::kDone);
}

TEST(Dispatcher_AForgottenJob, DoesNotComeBack) {
  Desk desk({.step_time = 10ms});
  const Waiter done, open;
  const auto finished = desk.dispatcher->submit(desk.record("finished"), done.listener());
  done.wait();
  desk.dispatcher->forget(finished);  // its record may still be on its way to the disk
  EXPECT_FALSE(desk.dispatcher->find(finished));
  const auto drawn = desk.dispatcher->submit(desk.record("drawn", 1, 1000), open.listener());
  wait_until([&] { return *open.steps > 0; });
  desk.dispatcher->forget(drawn);
  EXPECT_FALSE(desk.dispatcher->find(drawn));
  EXPECT_TRUE(desk.dispatcher->list({.most = 10}).records.empty());
  open.wait();
  wait_until([&] { return !desk.store->find(finished) && !desk.store->find(drawn); });
  std::this_thread::sleep_for(50ms);
  EXPECT_TRUE(desk.store->list({.most = 10}).empty());
}

TEST(Dispatcher_WhatNobodyCounts, IsNotSaidToBeNothing) {
  Desk desk;
  wait_until([&] { return !desk.dispatcher->status().at("ranks").empty(); });
  const auto rank = desk.dispatcher->status().at("ranks").at(0);
  EXPECT_EQ(rank.at("weight_bytes"), 1);
  EXPECT_EQ(rank.at("peak_device_bytes"), nullptr);
  wait_until([&] { return desk.metrics.text().find("\natelier_weight_bytes{") != std::string::npos; });
  EXPECT_EQ(desk.metrics.text().find("atelier_peak_device_bytes"), std::string::npos);
}

TEST(Dispatcher_AListOfJobs, SaysWhetherThereAreMore) {
  Desk desk;
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    const Waiter waiter;
    ids.push_back(desk.dispatcher->submit(desk.record(str("p", i)), waiter.listener()));
    waiter.wait();
  }
  desk.dispatcher->forget(ids[2]);
  const auto page = [&](int most, const std::string& before = "") {
    std::string out;
    const auto found = desk.dispatcher->list({.before = before, .most = most});
    for (const auto& r : found.records) out += str(std::find(ids.begin(), ids.end(), r.id) - ids.begin());
    return out + (found.has_more ? "+" : "");
  };
  EXPECT_EQ(page(2), "43+");
  EXPECT_EQ(page(2, ids[3]), "10");
  EXPECT_EQ(page(3), "431+");
  EXPECT_EQ(page(4), "4310");
  EXPECT_EQ(page(0), "+");
}

}  // namespace
}  // namespace atelier::server
