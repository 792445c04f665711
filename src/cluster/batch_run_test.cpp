// Runs of several processes around a runner without a model: what is drawn, what happens when workers break,
// what is left behind.
#include "cluster/batch_run.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/digest.h"
#include "cluster/testing.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

int open_descriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

TEST(BatchRun_DrawsEverythingOnce, OnSeveralGroups) {
  const int before = open_descriptors();
  Trial run(20, 3);
  run.per_batch = 3;
  run.on_stored = [&](const ArtifactStored& e) {
    const std::string bytes = read_file(run.folder.path() / e.request.name);
    EXPECT_EQ(e.stored.record.bytes, bytes.size());
    EXPECT_EQ(e.stored.record.sha256, sha256(bytes));
    EXPECT_TRUE(e.stored.data.empty());
  };
  run.go();
  run.expect_all(20);
  EXPECT_EQ(run.result.restarts, 0);
  ASSERT_EQ(run.result.ranks.size(), 3u);
  EXPECT_EQ(run.result.ranks[2].rank, 2);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(BatchRun_AKilledWorkerCostsNoPicture, InAnyPhase) {
  for (const char* fault : {"1:load:kill", "0:step:1:kill", "0:write:1:kill"}) {
    SCOPED_TRACE(fault);
    Trial run(4, 1, 2);
    run.per_batch = 2;
    run.fault = fault;
    run.go();
    run.expect_all(4);
    EXPECT_EQ(run.result.restarts, 1);
    EXPECT_TRUE(run.result.failures.empty());
    ASSERT_EQ(run.restarts.size(), 1u);
    EXPECT_NE(run.restarts[0].find("signal 9"), std::string::npos) << run.restarts[0];
  }
}

TEST(BatchRun_AnExceptionInAWorkerIsRetried, AndNamesRankAndReason) {
  Trial run(40, 1, 2);
  run.fault = "1:step:2:throw";
  run.go();
  run.expect_all(40);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("rank 1"), std::string::npos);
  EXPECT_NE(run.restarts[0].find("injected"), std::string::npos);
}

TEST(BatchRun_AHungWorkerIsNoticed, AndNotThoseThatWaitForIt) {
  for (const char* fault : {"2:step:1:hang", "0:step:hang", "1:decode:hang"}) {
    SCOPED_TRACE(fault);
    Trial run(2, 1, 3);
    run.fault = fault;
    run.config.pool.batch_timeout_s = 1.5;
    const auto begin = Clock::now();
    run.go();
    EXPECT_LT(seconds_since(begin), 20);
    run.expect_all(2);
    ASSERT_EQ(run.restarts.size(), 1u);
    const auto& why = run.restarts[0];
    EXPECT_NE(why.find("not got on for longer than 1.5 s"), std::string::npos) << why;
    for (int rank = 0; rank < 3; ++rank)
      EXPECT_EQ(why.find(str("rank ", rank)) != std::string::npos, fault[0] == '0' + rank) << why;
  }
}

TEST(SlowBatchRun_AStoppedWorkerIsNoticed, ByItsSilence) {
  Trial run(2, 1, 2);
  run.fault = "0:step:stop";
  const auto begin = Clock::now();
  run.go();
  EXPECT_LT(seconds_since(begin), 25);
  run.expect_all(2);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("no sign of life"), std::string::npos) << run.restarts[0];
}

TEST(SlowBatchRun_AWorkerThatIsStoppedBeforeItsFirstWordIsNoticed, Too) {
  Trial run(2, 1, 2);
  run.odd = "mute 1";
  run.go();
  run.expect_all(2);
  EXPECT_EQ(run.result.restarts, 1);
}

TEST(BatchRun_APictureThatAlwaysBreaksItsWorkerFails, AfterItsTries) {
  Trial run(1, 1, 2);
  run.config.pool.max_retries = 1;
  run.fault = "0:step:throw:always";
  run.go();
  ASSERT_EQ(run.result.failures.size(), 1u);
  EXPECT_EQ(run.result.failures[0].attempts, 2);
  EXPECT_NE(run.result.failures[0].reason.find("rank 0"), std::string::npos);
  run.expect_all(0);
}

TEST(BatchRun_ADeadGroupIsStartedAgainAlone, AndTheOthersDrawOn) {
  Trial run(60, 3);
  for (size_t i = 40; i < 60; ++i) run.prompts[i] = "slow";  // so that there is work when it is back
  run.config.pool.max_retries = 0;
  run.fault = "2:step:1:kill";
  run.go();
  EXPECT_EQ(run.result.failures.size(), 1u);
  run.expect_all(59);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("rank 2 of group 2"), std::string::npos) << run.restarts[0];
  EXPECT_EQ(run.folder.processes().size(), 4u);  // three, and one in place of the dead one
}

TEST(BatchRun_AGroupThatCannotBeStartedIsGivenUp, AndTheOthersDrawAll) {
  Trial run(30, 2, 2);
  run.config.pool.max_retries = 1;
  run.fault = "3:load:kill:always";
  run.go();
  run.expect_all(30);
  EXPECT_EQ(run.restarts.size(), 1u);
}

TEST(BatchRun_AModelThatDoesNotLoadEndsTheRun, WithItsKindAtOnce) {
  Trial run(2, 2);
  run.config.engine.model.preset = "broken";
  EXPECT_EQ(run.fail(), Kind::kCheckpoint);
  EXPECT_NE(run.reason.find("a tensor is missing"), std::string::npos);
  EXPECT_TRUE(run.restarts.empty());
  run.expect_nothing_left();
}

TEST(BatchRun_WorkersThatAlwaysDieWhileLoadingEndTheRun, AfterSomeTries) {
  Trial run(2, 1, 2);
  run.config.pool.max_retries = 1;
  run.fault = "1:load:kill:always";
  EXPECT_EQ(run.fail(), Kind::kPeer);
  EXPECT_EQ(run.restarts.size(), 1u);
  run.expect_nothing_left();
}

TEST(SlowBatchRun_AWorkerThatNeverLoadsEndsTheRun, AfterTheStartTime) {
  Trial run(1, 1, 2);
  run.fault = "1:load:hang:always";
  run.config.pool.start_timeout_s = 3;
  EXPECT_EQ(run.fail(), Kind::kPeer);
  EXPECT_NE(run.reason.find("has not loaded within 3 s"), std::string::npos) << run.reason;
  run.expect_nothing_left();
}

TEST(BatchRun_AVanishedOutputFolderEndsTheRun, WithItsReason) {
  Trial run(3, 2);
  run.prompts[1] = "vanish";
  EXPECT_EQ(run.fail(), Kind::kUsage);
  EXPECT_NE(run.reason.find("cannot write"), std::string::npos) << run.reason;
  fs::create_directories(run.folder.path());
  run.expect_nothing_left();
}

TEST(BatchRun_AStopRequestEndsTheRunSoon, AndKeepsWhatIsFinished) {
  Trial run(5000, 2);
  const int before = open_descriptors();
  Clock::time_point stopped;
  run.on_stored = [&](const ArtifactStored&) {
    if (run.pictures.size() != 5) return;
    stopped = Clock::now();
    run.stop.request_stop();
  };
  EXPECT_EQ(run.fail(), Kind::kInterrupted);
  EXPECT_LT(seconds_since(stopped), 2);
  EXPECT_GE(run.pictures.size(), 5u);
  EXPECT_LT(run.pictures.size(), 5000u);
  run.expect_all(run.pictures.size());
  EXPECT_EQ(open_descriptors(), before);
}

TEST(BatchRun_AnExceptionOfTheCallerEndsTheRun, AndLeavesNothing) {
  Trial run(50, 2, 2);
  run.on_stored = [&](const ArtifactStored&) {
    if (run.pictures.size() == 3) throw Error(Kind::kCapacity, "the ledger's disk is full");
  };
  EXPECT_EQ(run.fail(), Kind::kCapacity);
  EXPECT_EQ(run.reason, "the ledger's disk is full");
  run.expect_all(3);
}

TEST(BatchRun_AnExceptionOfAnyHandlerEndsTheRun, AndLeavesNothing) {
  const auto fail = [](const auto&) { throw Error(Kind::kCapacity, "the terminal is gone"); };
  const std::pair<const char*, RunEvents> handlers[] = {{"phase", {.on_phase = fail}},
                                                        {"step", {.on_step = fail}},
                                                        {"generated", {.on_generated = fail}},
                                                        {"restart", {.on_restart = fail}}};
  for (const auto& [name, events] : handlers) {
    SCOPED_TRACE(name);
    Trial run(20, 2, 2);
    run.events = events;
    if (events.on_restart) run.fault = "1:step:1:kill";
    EXPECT_EQ(run.fail(), Kind::kCapacity);
    EXPECT_EQ(run.reason, "the terminal is gone");
    run.expect_all(run.pictures.size());
  }
}

TEST(BatchRun_AMessageThatCannotBeUnderstoodEndsItsWorker, NotTheRun) {
  Trial run(200, 2);
  run.odd = "babble 1";
  run.go();
  run.expect_all(200);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("cannot be understood"), std::string::npos) << run.restarts[0];
}

TEST(BatchRun_ItsOwnDeathEndsTheWorkers, AtOnce) {
  const RunFolder folder;
  pid_t id = 0;
  {
    const Variable fake(kFakeVariable, "1"), where(kFolderVariable, folder.path());
    std::string program = "/proc/self/exe", word = "supervise", path = folder.path();
    char* const arguments[] = {program.data(), word.data(), path.data(), nullptr};
    ASSERT_EQ(::posix_spawn(&id, program.c_str(), nullptr, nullptr, arguments, environ), 0);
  }
  const auto begin = Clock::now();
  auto workers = folder.processes();
  while ((!fs::exists(folder.path() / "3.png") || workers.size() < 2) && seconds_since(begin) < 20) {
    std::this_thread::sleep_for(10ms);
    workers = folder.processes();
  }
  EXPECT_EQ(workers.size(), 2u);
  ::kill(id, SIGKILL);
  ::waitpid(id, nullptr, 0);
  const auto killed = Clock::now();
  const auto lives = [&] { return std::any_of(workers.begin(), workers.end(), is_running); };
  while (lives() && seconds_since(killed) < 2) std::this_thread::sleep_for(10ms);
  EXPECT_FALSE(lives());
}

}  // namespace
}  // namespace atelier::cluster
