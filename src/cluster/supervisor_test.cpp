// Runs on several processes: what is drawn, what happens when workers break, what is left behind.
#include "cluster/supervisor.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "cluster/sockets.h"

extern char** environ;

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int open_descriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

bool is_running(pid_t id) {
  std::ifstream stat(str("/proc/", id, "/stat"));
  std::string number, name, state;
  return stat >> number >> name >> state && state != "Z";
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "atelier-supervisor-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }
  std::vector<pid_t> processes() const {
    std::vector<pid_t> all;
    for (const auto& entry : fs::directory_iterator(path_)) {
      const std::string name = entry.path().filename();
      if (name.starts_with("process-")) all.push_back(std::stoi(name.substr(8)));
    }
    return all;
  }
  int unfinished() const {
    int count = 0;
    for (const auto& entry : fs::directory_iterator(path_))
      count += entry.path().filename().string().ends_with(".tmp");
    return count;
  }

 private:
  fs::path path_;
};

class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) { ::setenv(name, value.c_str(), 1); }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

// One run with workers that only keep the protocol.
struct Trial {
  Job job;
  int max_retries = 2;
  std::vector<std::string> prompts;
  int per_batch = 1;
  std::string fault;
  std::stop_source stop;
  std::function<void(const Finished&)> on_picture;

  Folder folder;
  std::map<std::string, int> pictures;  // how often each was reported
  std::vector<std::string> restarts;
  RunResult outcome;

  explicit Trial(int requests, int data = 1, int ulysses = 1) {
    for (int i = 0; i < requests; ++i) prompts.push_back(str("prompt ", i));
    job.engine.layout.data = data;
    job.engine.layout.ulysses = ulysses;
    job.pool.batch_timeout_s = 60;
    job.pool.start_timeout_s = 60;
  }

  std::vector<std::vector<request::Request>> batches() const {
    std::vector<std::vector<request::Request>> out;
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (i % static_cast<size_t>(per_batch) == 0) out.emplace_back();
      out.back().push_back({.prompt = prompts[i], .index = static_cast<int64_t>(i), .name = str(i, ".txt")});
    }
    return out;
  }

  void go() {
    const Variable fake("ATELIER_TEST_FAKE_WORKER", "1"), broken("ATELIER_FAULT", fault);
    job.sink.folder = folder.path();
    job.pool.max_retries = max_retries;
    jobs::Queue queue(batches(), max_retries);
    const Events events{.on_picture =
                            [&](const Finished& f) {
                              ++pictures[f.request.name];
                              if (on_picture) on_picture(f);
                            },
                        .on_restart = [&](const std::string& why) { restarts.push_back(why); }};
    outcome = run_job(job, queue, events, stop.get_token());
  }

  Kind fail() {
    try {
      go();
    } catch (const Error& e) {
      reason = e.what();
      return e.kind();
    }
    ADD_FAILURE() << "the run did not fail";
    return Kind::kUsage;
  }
  std::string reason;

  // All pictures once, whole; no process, no half file.
  void expect_all(size_t count) const {
    EXPECT_EQ(pictures.size(), count);
    for (const auto& [name, times] : pictures) {
      EXPECT_EQ(times, 1) << name;
      EXPECT_EQ(read_file(folder.path() / name), prompts[std::stoul(name)]);
    }
    expect_nothing_left();
  }
  void expect_nothing_left() const {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    for (const pid_t id : folder.processes()) EXPECT_FALSE(is_running(id)) << id;
    EXPECT_EQ(folder.unfinished(), 0);
  }
};

TEST(Supervisor_DrawsEverythingOnce, OnSeveralGroups) {
  const int before = open_descriptors();
  Trial run(20, 3);
  run.per_batch = 3;
  run.go();
  run.expect_all(20);
  EXPECT_EQ(run.outcome.restarts, 0);
  ASSERT_EQ(run.outcome.ranks.size(), 3u);
  EXPECT_EQ(run.outcome.ranks[2].rank, 2);
  EXPECT_EQ(run.outcome.ranks[2].seconds.at("denoise"), 2);  // of the last message
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Supervisor_AKilledWorkerCostsNoPicture, InAnyPhase) {
  for (const char* fault : {"1:load:kill", "0:step:1:kill", "0:write:1:kill"}) {
    SCOPED_TRACE(fault);
    Trial run(4, 1, 2);
    run.per_batch = 2;
    run.fault = fault;
    run.go();
    run.expect_all(4);
    EXPECT_EQ(run.outcome.restarts, 1);
    EXPECT_TRUE(run.outcome.failures.empty());
    ASSERT_EQ(run.restarts.size(), 1u);
    EXPECT_NE(run.restarts[0].find("signal 9"), std::string::npos) << run.restarts[0];
  }
}

TEST(Supervisor_AnExceptionInAWorkerIsRetried, AndNamesRankAndReason) {
  Trial run(40, 1, 2);
  run.fault = "1:step:2:throw";
  run.go();
  run.expect_all(40);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("rank 1"), std::string::npos);
  EXPECT_NE(run.restarts[0].find("injected"), std::string::npos);
}

TEST(Supervisor_AHungWorkerIsNoticed, AfterTheItemsTime) {
  Trial run(2, 1, 2);
  run.fault = "0:step:hang";
  run.job.pool.batch_timeout_s = 1.5;
  const auto begin = Clock::now();
  run.go();
  EXPECT_LT(seconds_since(begin), 20);
  run.expect_all(2);
  ASSERT_EQ(run.outcome.restarts, 1);
  EXPECT_NE(run.restarts[0].find("longer than 1.5 s"), std::string::npos) << run.restarts[0];
}

TEST(SlowSupervisor_AStoppedWorkerIsNoticed, ByItsSilence) {
  Trial run(2, 1, 2);
  run.fault = "0:step:stop";
  const auto begin = Clock::now();
  run.go();
  EXPECT_LT(seconds_since(begin), 25);
  run.expect_all(2);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("no sign of life"), std::string::npos) << run.restarts[0];
}

TEST(SlowSupervisor_AWorkerThatIsStoppedBeforeItsFirstWordIsNoticed, Too) {
  Trial run(2, 1, 2);
  const Variable mute("ATELIER_TEST_MUTE", "1");
  run.go();
  run.expect_all(2);
  EXPECT_EQ(run.outcome.restarts, 1);
}

TEST(Supervisor_APictureThatAlwaysBreaksItsWorkerFails, AfterItsTries) {
  Trial run(1, 1, 2);
  run.max_retries = 1;
  run.fault = "0:step:throw:always";
  run.go();
  ASSERT_EQ(run.outcome.failures.size(), 1u);
  EXPECT_EQ(run.outcome.failures[0].attempts, 2);
  EXPECT_NE(run.outcome.failures[0].reason.find("rank 0"), std::string::npos);
  run.expect_all(0);
}

TEST(Supervisor_OtherGroupsPicturesAreNotCharged, ForADeathThatIsNotTheirs) {
  Trial run(60, 3);
  run.max_retries = 0;
  run.fault = "2:step:1:kill";
  run.go();
  EXPECT_EQ(run.outcome.failures.size(), 1u);
  run.expect_all(59);
}

TEST(Supervisor_AModelThatDoesNotLoadEndsTheRun, WithItsKindAtOnce) {
  Trial run(2, 2);
  run.job.engine.model.preset = "broken";
  EXPECT_EQ(run.fail(), Kind::kCheckpoint);
  EXPECT_NE(run.reason.find("a tensor is missing"), std::string::npos);
  EXPECT_TRUE(run.restarts.empty());
  run.expect_nothing_left();
}

TEST(Supervisor_WorkersThatAlwaysDieWhileLoadingEndTheRun, AfterSomeTries) {
  Trial run(2, 1, 2);
  run.max_retries = 1;
  run.fault = "1:load:kill:always";
  EXPECT_EQ(run.fail(), Kind::kPeer);
  EXPECT_EQ(run.restarts.size(), 1u);
  run.expect_nothing_left();
}

TEST(SlowSupervisor_AWorkerThatNeverLoadsEndsTheRun, AfterTheStartTime) {
  Trial run(1, 1, 2);
  run.fault = "1:load:hang:always";
  run.job.pool.start_timeout_s = 3;
  EXPECT_EQ(run.fail(), Kind::kPeer);
  EXPECT_NE(run.reason.find("has not loaded within 3 s"), std::string::npos) << run.reason;
  run.expect_nothing_left();
}

TEST(Supervisor_AFullDiskEndsTheRun, WithItsReason) {
  Trial run(3, 2);
  run.prompts[1] = "too much";
  EXPECT_EQ(run.fail(), Kind::kCapacity);
  EXPECT_NE(run.reason.find("the disk is full"), std::string::npos);
  run.expect_nothing_left();
}

TEST(Supervisor_AStopRequestEndsTheRunSoon, AndKeepsWhatIsFinished) {
  Trial run(5000, 2);
  const int before = open_descriptors();
  Clock::time_point stopped;
  run.on_picture = [&](const Finished&) {
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

TEST(Supervisor_ItsOwnDeathEndsTheWorkers, AtOnce) {
  const Folder folder;
  pid_t id = 0;
  {
    const Variable fake("ATELIER_TEST_FAKE_WORKER", "1");
    std::string program = "/proc/self/exe", word = "supervise", path = folder.path();
    char* const arguments[] = {program.data(), word.data(), path.data(), nullptr};
    ASSERT_EQ(::posix_spawn(&id, program.c_str(), nullptr, nullptr, arguments, environ), 0);
  }
  const auto begin = Clock::now();
  while (!fs::exists(folder.path() / "3") && seconds_since(begin) < 20)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const auto workers = folder.processes();
  EXPECT_EQ(workers.size(), 2u);
  ::kill(id, SIGKILL);
  ::waitpid(id, nullptr, 0);
  const auto killed = Clock::now();
  const auto lives = [&] { return std::any_of(workers.begin(), workers.end(), is_running); };
  while (lives() && seconds_since(killed) < 2) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(lives());
}

// The launched processes as threads of this one; their workers are processes.
struct Launched {
  explicit Launched(int ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      outers.push_back({.launcher = "test",
                        .rank = rank,
                        .size = ranks,
                        .local_rank = rank,
                        .local_size = ranks,
                        .host = "127.0.0.1",
                        .port = 20000 + ::getpid() % 10000,
                        .key = "key"});
    }
    coordinator.emplace(outers[0]);
    codes.resize(outers.size());
    for (size_t i = 1; i < outers.size(); ++i)
      followers.emplace_back([this, i] { codes[i] = run_node_agent(outers[i]); });
  }
  void finish(int code) {
    coordinator->finish(code);
    followers.clear();
    for (size_t i = 1; i < codes.size(); ++i) EXPECT_EQ(codes[i], code);
  }
  std::vector<LauncherEnv> outers;
  std::optional<Coordinator> coordinator;
  std::vector<int> codes;
  std::vector<std::jthread> followers;
};

TEST(Launch_RanksOfOtherProcessesDraw, AndAreStartedAgain) {
  const Variable fake("ATELIER_TEST_FAKE_WORKER", "1"), fault("ATELIER_FAULT", "2:step:1:kill");
  Launched launched(3);
  Trial run(6, 3);
  run.job.sink.folder = run.folder.path();
  jobs::Queue queue(run.batches(), run.max_retries);
  const Events events{.on_picture = [&](const Finished& f) { ++run.pictures[f.request.name]; },
                      .on_restart = [&](const std::string& reason) { run.restarts.push_back(reason); }};
  const auto outcome = run_job(run.job, queue, events, {}, *launched.coordinator);
  launched.finish(0);
  run.expect_all(6);
  EXPECT_EQ(outcome.restarts, 1);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("rank 2"), std::string::npos);
  EXPECT_NE(run.restarts[0].find("signal 9"), std::string::npos) << run.restarts[0];
}

TEST(Launch_AnotherNumberOfRanksIsRefused, AndEverybodyLearnsTheExitCode) {
  Launched launched(2);
  Trial run(1, 3);
  jobs::Queue queue(run.batches(), 0);
  EXPECT_THROW(run_job(run.job, queue, {}, {}, *launched.coordinator), Error);
  launched.finish(2);
}

TEST(Launch_AStrangerIsIgnored, WithoutTheKey) {
  Launched launched(2);
  auto stranger = launched.outers[1];
  stranger.key = "another";
  stranger.host = "127.0.0.1";
  Channel channel(
      [&] {
        for (int i = 1;; ++i) {
          if (auto fd = connect_to("127.0.0.1", stranger.port + i); fd.get() >= 0) return fd.release();
        }
      }(),
      Channel::Side::kWorker, "another");
  channel.send({{"is", "hello"}, {"rank", 1}, {"ranks", 1}, {"start", 0}, {"host", "x"}});
  EXPECT_FALSE(channel.wait(std::chrono::seconds(10)));
  launched.finish(0);
}

}  // namespace
}  // namespace atelier::cluster
