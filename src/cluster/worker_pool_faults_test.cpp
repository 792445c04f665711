// Workers that hang, cannot be started or do not end: the other groups draw on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <memory>

#include "cluster/heard_pool_for_test.h"

namespace atelier::cluster {
namespace {

using Clock = std::chrono::steady_clock;

// What is sent to a worker that does not read waits in a bounded queue; nobody else waits.
TEST(WorkerPool_AWorkerThatDoesNotReadHoldsUpNobody, AndIsReplaced) {
  const Variable odd(kOddVariable, "deaf 0");
  HeardPool r(2);
  r.start();
  while (r.ready.count(0) == 0 && !::testing::Test::HasFailure()) r.poll();
  const auto big = r.submit({std::string(24 << 20, 'x')});  // for the first group, the one that does not read
  const auto begin = Clock::now();
  std::vector<int64_t> small;
  for (int i = 0; i < 20; ++i) small.push_back(r.submit({"small"}));
  for (const auto batch : small) r.wait_for(batch);
  EXPECT_LT(seconds_since(begin), 10);
  EXPECT_EQ(r.restarts, 0);
  r.pool->cancel(big);  // one message more than the queue takes
  r.wait_for(big);
  EXPECT_EQ(r.done[big].cancelled, 1);
  EXPECT_EQ(r.restarts, 1);
  r.end();
}

// Another process has taken the memory that its worker had: the other group is at work.
TEST(WorkerPool_AGroupThatCannotLoadAgainIsGivenUp, AndTheOthersDrawOn) {
  HeardPool r(2);
  r.trial.config.pool.max_retries = 1;
  r.wait_for(r.submit({"a"}));
  while (r.ready.size() < 2 && !HasFailure()) r.poll();
  std::ofstream(r.trial.folder.path() / "full") << ' ';
  ::kill(r.trial.folder.processes()[0], SIGKILL);
  const auto begin = Clock::now();
  while (r.lost == 0 && seconds_since(begin) < 30) ASSERT_NO_THROW(r.poll());
  EXPECT_EQ(r.lost, 1);
  const auto next = r.submit({"b"});
  r.wait_for(next);
  EXPECT_EQ(r.stored[next].size(), 1u);
  r.end();
}

// As many clients take the process's descriptors.
class NoDescriptors {
 public:
  NoDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int free = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::close(free);
    const rlimit less{static_cast<rlim_t>(free), before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &less);
  }
  ~NoDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST(WorkerPool_AWorkerThatTheSystemDoesNotStart, IsTriedAgainAndHoldsUpNoOtherGroup) {
  for (const bool lasts : {false, true}) {
    HeardPool r(2);
    r.wait_for(r.submit({"a"}));
    while (r.ready.size() < 2 && !HasFailure()) r.poll();
    r.ready.clear();
    const pid_t worker = r.trial.folder.processes()[0];
    std::optional<NoDescriptors> full(std::in_place);
    ::kill(worker, SIGKILL);
    const auto begin = Clock::now();
    while (r.lost == 0 && r.ready.empty() && seconds_since(begin) < 30) {
      ASSERT_NO_THROW(r.poll());
      if (!lasts && r.restarts == 2) full.reset();  // of a worker that was ended, and of one without a start
    }
    full.reset();
    EXPECT_EQ(r.lost, lasts ? 1 : 0);
    const auto next = r.submit({"b"});
    r.wait_for(next);
    EXPECT_EQ(r.stored[next].size(), 1u);
    r.pool.reset();
    for (const pid_t id : r.trial.folder.processes()) EXPECT_FALSE(is_running(id)) << id;
  }
}

// To its parent a process that another one traces has not ended when it is dead: like one that hangs
// in a driver.
class Tracer {
 public:
  explicit Tracer(pid_t traced) : id_(::fork()) {
    if (id_ == 0) {
      const bool is_traced = ::ptrace(PTRACE_SEIZE, traced, nullptr, nullptr) == 0;
      const char answer = is_traced ? 'y' : 'n';
      [[maybe_unused]] const auto written = ::write(pipe_[1], &answer, 1);
      for (;;) ::pause();
    }
    char answer = 'n';
    [[maybe_unused]] const auto read = ::read(pipe_[0], &answer, 1);
    holds_ = answer == 'y';
  }
  ~Tracer() {
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
    for (const int fd : pipe_) ::close(fd);
  }
  bool holds() const { return holds_; }

 private:
  std::array<int, 2> pipe_ = [] {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    return ends;
  }();
  pid_t id_;
  bool holds_ = false;
};

TEST(WorkerPool_AWorkerThatDoesNotEndIsLeftBehind, AndHoldsUpNeitherItsPoolNorItsEnd) {
  HeardPool r(2);
  r.trial.config.pool.end_timeout_s = 0.5;
  r.wait_for(r.submit({"a"}));
  while (r.ready.size() < 2 && !HasFailure()) r.poll();
  const auto workers = r.trial.folder.processes();
  std::vector<std::unique_ptr<Tracer>> tracers;
  for (const pid_t id : workers) tracers.push_back(std::make_unique<Tracer>(id));
  if (!tracers.front()->holds()) GTEST_SKIP() << "no process can be traced here";
  ::kill(workers[0], SIGKILL);
  auto begin = Clock::now();
  while (r.lost == 0 && seconds_since(begin) < 20) r.poll();
  EXPECT_EQ(r.lost, 1);
  const auto next = r.submit({"b"});
  r.wait_for(next);
  EXPECT_EQ(r.stored[next].size(), 1u);
  begin = Clock::now();
  r.pool.reset();
  EXPECT_LT(seconds_since(begin), 10);
  tracers.clear();
  while (::waitpid(-1, nullptr, 0) > 0) continue;
}

}  // namespace
}  // namespace atelier::cluster
