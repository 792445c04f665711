// A pool as a server has it: what is cancelled and when, bad requests, bytes in place of files, many clients.
#include "cluster/worker_pool.h"

#include <csignal>
#include <set>
#include <thread>

#include "base/digest.h"
#include "cluster/heard_pool_for_test.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

TEST(WorkerPool_ACancelAtAnyStepEndsTheBatch, AndTheWorkersLiveOn) {
  for (const auto& [data, ulysses] : {std::pair{1, 1}, std::pair{1, 2}, std::pair{1, 4}, std::pair{2, 2}}) {
    HeardPool r(data, ulysses);
    for (int step = 1; step <= 4; ++step) {
      SCOPED_TRACE(str("data ", data, " ulysses ", ulysses, " step ", step));
      const auto batch = r.submit({"slow", "b"}, 40);
      int last = 0;
      r.on_step = [&](const StepDone& e) {
        if (e.batch != batch) return;
        last = e.step;
        if (e.step == step) r.pool->cancel(batch);
      };
      r.wait_for(batch);
      EXPECT_EQ(r.done[batch].cancelled, 2);
      EXPECT_LE(last, step + 2);
      EXPECT_TRUE(r.stored[batch].empty());
      const auto next = r.submit({"next"});
      r.wait_for(next);
      EXPECT_EQ(r.stored[next].size(), 1u);
    }
    EXPECT_EQ(r.restarts, 0);
    EXPECT_EQ(std::ssize(r.trial.folder.processes()), data * ulysses);
    r.end();
  }
}

TEST(WorkerPool_ABatchThatWaitsIsCancelled, AtOnce) {
  HeardPool r(1, 2);
  const auto first = r.submit({"slow"}, 5);
  const auto second = r.submit({"x", "y", "z"});
  const auto third = r.submit({"x"});
  r.pool->cancel(second);
  r.pool->cancel(second);
  r.pool->cancel(999);  // nobody's
  r.wait_for(second);
  EXPECT_EQ(r.done[second].cancelled, 3);
  EXPECT_EQ(r.done.count(first), 0u);
  r.wait_for(third);
  EXPECT_EQ(r.stored[first].size(), 1u);
  EXPECT_EQ(r.done[first].cancelled, 0);
  r.pool->cancel(first);  // done
  const auto last = r.submit({"x"});
  r.wait_for(last);
  EXPECT_TRUE(r.failed.empty());
  r.end();
}

// Whenever it comes, a batch is either stored as a whole or dropped as a whole.
TEST(WorkerPool_ACancelAtAnyMoment, LeavesNoHalfBatch) {
  HeardPool r(1, 2);
  r.wait_for(r.submit({"warm"}));
  int dropped = 0;
  for (int i = 0; i < 60; ++i) {
    const auto batch = r.submit({"a", "b"});
    const auto until = Clock::now() + std::chrono::microseconds(i * 700);
    while (Clock::now() < until) {
      for (const auto& event : r.pool->poll(0ms)) {
        if (const auto* e = std::get_if<BatchDone>(&event)) r.done[e->batch] = *e;
        if (const auto* e = std::get_if<ArtifactStored>(&event)) r.stored[e->batch].push_back(*e);
      }
    }
    r.pool->cancel(batch);
    r.wait_for(batch);
    EXPECT_EQ(r.done[batch].cancelled + std::ssize(r.stored[batch]), 2);
    EXPECT_NE(r.done[batch].cancelled, 1);
    dropped += r.done[batch].cancelled > 0;
  }
  EXPECT_GT(dropped, 0);
  EXPECT_LT(dropped, 60);
  EXPECT_EQ(r.restarts, 0);
  r.end();
}

TEST(WorkerPool_ABadPromptOnManyRanks_IsAnsweredWithoutARestart, AndItsNeighboursAreDrawn) {
  HeardPool r(1, 4);
  const auto batch = r.submit({"a", "bad", "c"});
  r.wait_for(batch);
  const auto alone = r.submit({"bad"});
  r.wait_for(alone);
  const auto good = r.submit({"d"});
  r.wait_for(good);
  ASSERT_EQ(r.failed.size(), 2u);
  EXPECT_EQ(r.failed[0].request.prompt, "bad");
  EXPECT_EQ(r.failed[0].attempts, 2);  // among others, then alone
  EXPECT_EQ(r.failed[1].attempts, 1);
  EXPECT_EQ(r.stored[batch].size(), 2u);
  EXPECT_EQ(r.stored[good].size(), 1u);
  EXPECT_EQ(r.restarts, 0);
  EXPECT_EQ(r.trial.folder.processes().size(), 4u);
  r.end();
}

TEST(WorkerPool_ARankThatFailsAloneIsOutOfStep_SoItsGroupStartsAgain, Once) {
  HeardPool r(1, 2);
  const auto batch = r.submit({"rank 1 alone fails"});
  r.wait_for(batch);
  ASSERT_EQ(r.failed.size(), 1u);
  EXPECT_NE(r.failed[0].reason.find("full"), std::string::npos);
  EXPECT_EQ(r.restarts, 2);  // it was tried once more with all memory free
  const auto next = r.submit({"next"});
  r.wait_for(next);
  EXPECT_EQ(r.stored[next].size(), 1u);
  r.end();
}

TEST(WorkerPool_ArtifactsComeBackAsBytes, ThroughTheChannel) {
  HeardPool r(2);
  r.trial.config.sink.returns_bytes = true;
  const auto batch = r.submit({"a", "b"});
  r.wait_for(batch);
  ASSERT_EQ(r.stored[batch].size(), 2u);
  for (const auto& e : r.stored[batch]) {
    EXPECT_EQ(e.stored.data.size(), e.stored.record.bytes);
    EXPECT_EQ(sha256(e.stored.data), e.stored.record.sha256);
    EXPECT_EQ(prompt_in(e.stored.data), e.request.prompt);
    EXPECT_EQ(media::decode(e.stored.data).rgb, (std::vector<uint8_t>{1, 2, 3}));
    EXPECT_FALSE(fs::exists(r.trial.folder.path() / e.request.name));
  }
  r.pool.reset();
}

// A folder that cannot be written is everybody's; bytes that cannot be made are one request's own.
TEST(WorkerPool_BytesThatCannotBeMade, EndNoPool) {
  const Variable broken("ATELIER_FAULT", "0:write:0:oom");
  HeardPool r(1);
  r.trial.config.sink.returns_bytes = true;
  const auto batch = r.submit({"a"});
  r.wait_for(batch);
  EXPECT_EQ(r.stored[batch].size(), 1u);  // at its second try
  EXPECT_TRUE(r.failed.empty());
  r.pool.reset();
}

TEST(WorkerPool_ABatchThatGoesOnIsNotLate, HoweverLongItTakesInAll) {
  HeardPool r(1, 2);
  r.trial.config.pool.batch_timeout_s = 1.5;
  const auto batch = r.submit({"slow"}, 40);  // 4 s
  r.wait_for(batch);
  EXPECT_EQ(r.stored[batch].size(), 1u);
  EXPECT_EQ(r.restarts, 0);
  r.end();
}

// As systemd and container runtimes do it: what is to end is the pool's to say.
TEST(WorkerPool_ASigtermForEveryProcess, EndsNoWorkerInTheMiddleOfItsPicture) {
  HeardPool r(1, 2);
  const auto batch = r.submit({"slow"}, 10);
  r.on_step = [&](const StepDone& e) {
    if (e.step != 2) return;
    for (const pid_t id : r.trial.folder.processes()) ::kill(id, SIGTERM);
  };
  r.wait_for(batch);
  EXPECT_EQ(r.stored[batch].size(), 1u);
  EXPECT_EQ(r.restarts, 0);
  r.end();
}

TEST(WorkerPool_AnArtifactOfManyPieces, ComesBackWhole) {
  HeardPool r;
  r.trial.config.sink.returns_bytes = true;
  for (const char* prompt : {"large", "small"}) {
    const auto batch = r.submit({prompt});
    r.wait_for(batch);
    ASSERT_EQ(r.stored[batch].size(), 1u);
    const auto& stored = r.stored[batch].front().stored;
    EXPECT_EQ(stored.data.size() > kPieceBytes, prompt == std::string("large"));
    EXPECT_EQ(stored.data.size(), stored.record.bytes);
    EXPECT_EQ(sha256(stored.data), stored.record.sha256);
  }
  EXPECT_EQ(r.restarts, 0);
  r.pool.reset();
}

TEST(WorkerPool_ManyThreadsSubmitAndCancel, OnePolls) {
  HeardPool r(2);
  r.start();
  std::mutex mutex;
  std::vector<int64_t> all;
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t) {
    clients.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        request::Request request;
        request.prompt = "p";
        request.name = str(t, "-", i, ".png");
        const auto batch = r.pool->submit({request});
        if (i % 3 == 0) r.pool->cancel(batch);
        const std::scoped_lock lock(mutex);
        all.push_back(batch);
      }
    });
  }
  while (std::ssize(r.done) < 40 && !HasFailure()) r.poll();
  for (auto& client : clients) client.join();
  EXPECT_EQ(std::set<int64_t>(all.begin(), all.end()).size(), 40u);
  for (const auto& [id, done] : r.done) EXPECT_EQ(done.cancelled + std::ssize(r.stored[id]), 1);
  r.pool.reset();
}

TEST(WorkerPool_AnotherThreadMayNotPoll, BecauseWorkersDieWithTheThreadThatStartedThem) {
  HeardPool r;
  r.wait_for(r.submit({"a"}));
  std::thread([&] { EXPECT_THROW(r.pool->poll(0ms), std::logic_error); }).join();
  EXPECT_THROW(r.pool->submit(std::vector<request::Request>{}), Error);
  r.end();
}

}  // namespace
}  // namespace atelier::cluster
