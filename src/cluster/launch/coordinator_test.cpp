// Runs over several launched processes: the agents here are threads of this one, their workers are processes.
#include <sys/socket.h>
#include <sys/wait.h>

#include <limits>
#include <thread>

#include "cluster/launch/launch.h"
#include "cluster/sockets.h"
#include "cluster/testing.h"

namespace atelier::cluster {
namespace {

using namespace std::chrono_literals;

struct Launched {
  explicit Launched(int ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      envs.push_back({.launcher = "test",
                      .rank = rank,
                      .size = ranks,
                      .local_rank = rank,
                      .local_size = ranks,
                      .host = "127.0.0.1",
                      .port = 20000 + ::getpid() % 10000,
                      .key = "key"});
    }
    coordinator.emplace(envs[0]);
    codes.resize(envs.size());
  }
  void start_agents() {
    for (size_t i = 1; i < envs.size(); ++i)
      agents.emplace_back([this, i] { codes[i] = run_node_agent(envs[i]); });
  }
  void finish(int code) {
    coordinator->finish(code);
    agents.clear();
    for (size_t i = 1; i < codes.size(); ++i) EXPECT_EQ(codes[i], code);
  }
  Descriptor connect() const {
    for (int i = 1; i <= LauncherEnv::kPorts; ++i) {
      if (auto fd = connect_to("127.0.0.1", envs[0].port + i, 5s); fd.get() >= 0) return fd;
    }
    return {};
  }
  std::vector<LauncherEnv> envs;
  std::optional<Coordinator> coordinator;
  std::vector<int> codes;
  std::vector<std::jthread> agents;
};

struct LaunchedRun {
  Job config;
  RunFolder folder;
  std::map<std::string, int> pictures;
  std::vector<std::string> restarts;
  RunResult result;

  LaunchedRun(int data, int ulysses) {
    config.engine.layout.data = data;
    config.engine.layout.ulysses = ulysses;
    config.sink.folder = folder.path();
  }
  void go(int requests, Coordinator& coordinator) {
    const Variable fake(kFakeVariable, "1"), where(kFolderVariable, folder.path());
    std::vector<std::vector<request::Request>> batches;
    for (int i = 0; i < requests; ++i) {
      batches.push_back({{}});
      batches.back()[0].prompt = "slow";  // so that there is work for those who come back
      batches.back()[0].name = str(i, ".png");
    }
    const RunEvents events{.on_stored = [&](const ArtifactStored& e) { ++pictures[e.request.name]; },
                           .on_restart = [&](const std::string& reason) { restarts.push_back(reason); }};
    result = run_batches(config, std::move(batches), events, {}, &coordinator);
  }
};

TEST(Launch_WhoStopsARun, DoesNotWaitForProcessesThatHaveNotCome) {
  Launched launched(3);
  const auto began = std::chrono::steady_clock::now();
  launched.coordinator->finish(exit_code(Kind::kInterrupted));
  EXPECT_LT(std::chrono::steady_clock::now() - began, Coordinator::kStopPatience + 4s);
}

TEST(Launch_RanksOfOtherProcessesDraw, AndAreStartedAgainAlone) {
  const Variable fault("ATELIER_FAULT", "2:step:1:kill");
  Launched launched(3);
  launched.start_agents();
  LaunchedRun run(3, 1);
  run.go(20, *launched.coordinator);
  launched.finish(0);
  EXPECT_EQ(run.pictures.size(), 20u);
  EXPECT_EQ(run.result.restarts, 1);
  ASSERT_EQ(run.restarts.size(), 1u);
  EXPECT_NE(run.restarts[0].find("rank 2"), std::string::npos);
  EXPECT_NE(run.restarts[0].find("signal 9"), std::string::npos) << run.restarts[0];
  EXPECT_EQ(run.folder.processes().size(), 4u);
}

TEST(Launch_AReplicaSpansProcesses, AndMeetsAgainAfterADeath) {
  const Variable fault("ATELIER_FAULT", "3:step:1:kill");
  Launched launched(4);
  launched.start_agents();
  LaunchedRun run(2, 2);  // the second replica has none of its ranks in this process
  run.go(20, *launched.coordinator);
  launched.finish(0);
  EXPECT_EQ(run.pictures.size(), 20u);
  EXPECT_EQ(run.result.restarts, 1);
  EXPECT_EQ(run.folder.processes().size(), 6u);
}

TEST(Launch_AnotherNumberOfRanksIsRefused, AndEverybodyLearnsTheExitCode) {
  Launched launched(2);
  launched.start_agents();
  LaunchedRun run(3, 1);
  EXPECT_THROW(run.go(1, *launched.coordinator), Error);
  launched.finish(2);
}

TEST(Launch_AStrangerIsIgnored, WithoutTheKey) {
  Launched launched(2);
  launched.start_agents();
  Channel channel(launched.connect().release(), Channel::Side::kWorker, "another");
  ASSERT_TRUE(channel.greet(5s));
  channel.send({{"is", "hello"}, {"rank", 1}, {"ranks", 1}, {"start", 0}, {"host", "x"}});
  EXPECT_FALSE(channel.wait(10s));
  launched.finish(0);
}

// Before it has shown the key, a peer is given little memory.
TEST(Launch_AStrangerThatSendsALotIsHungUpOn, AtOnce) {
  Launched launched(2);
  const auto stranger = launched.connect();
  std::string bytes(32, 'n');             // its nonce
  bytes += std::string("\0\0\x08\0", 4);  // 512 KiB follow
  bytes.append(500'000, 'x');
  ::send(stranger.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  const auto begin = std::chrono::steady_clock::now();
  for (ssize_t n = 1; n > 0;) n = ::recv(stranger.get(), bytes.data(), bytes.size(), 0);
  EXPECT_LT(seconds_since(begin), 3);  // a greeting may take longer
  launched.start_agents();
  launched.finish(0);
}

TEST(Launch_MoreRanksThanThereAreAreRefused, HoweverMany) {
  Launched launched(2);
  for (const int count : {2, std::numeric_limits<int>::max()}) {
    Channel channel(launched.connect().release(), Channel::Side::kWorker, "key");
    ASSERT_TRUE(channel.greet(5s));
    channel.send({{"is", "hello"}, {"rank", 1}, {"ranks", count}, {"start", -1}, {"host", "x"}});
    EXPECT_FALSE(channel.wait(10s)) << count;
  }
  launched.start_agents();
  launched.finish(0);
}

TEST(Launch_ConnectionsThatSayNothingHoldUpNobody, WhileTheyAreWaitedFor) {
  Launched launched(2);
  std::vector<Descriptor> silent;
  for (int i = 0; i < 20; ++i) silent.push_back(launched.connect());
  Channel half(launched.connect().release(), Channel::Side::kWorker, "key");
  const auto begin = std::chrono::steady_clock::now();
  launched.start_agents();
  LaunchedRun run(2, 1);
  run.go(4, *launched.coordinator);
  EXPECT_EQ(run.pictures.size(), 4u);
  EXPECT_LT(seconds_since(begin), 5);  // each might have been waited for so long
  launched.finish(0);
}

TEST(Launch_ARecordedGreetingIsRefused, OnAnotherConnection) {
  Launched launched(2);
  // A listener in between, who knows no key and hands on every byte in both directions.
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  const auto outside = launched.connect();
  Channel worker(ends[0], Channel::Side::kWorker, "key");
  std::string bytes(65536, '\0');
  const auto hand_on = [&](int from, int to) {
    const auto n = ::recv(from, bytes.data(), bytes.size(), 0);
    EXPECT_GT(n, 0);
    EXPECT_EQ(::send(to, bytes.data(), static_cast<size_t>(n), MSG_NOSIGNAL), n);
    return bytes.substr(0, static_cast<size_t>(n));
  };
  hand_on(outside.get(), ends[1]);  // the coordinator's nonce
  ASSERT_TRUE(worker.greet(5s));
  worker.send({{"is", "hello"}, {"rank", 1}, {"ranks", 1}, {"start", -1}, {"host", "x"}});
  const std::string recorded = hand_on(ends[1], outside.get());
  hand_on(outside.get(), ends[1]);
  ASSERT_TRUE(worker.wait(5s));  // welcome: recorded is what the coordinator takes
  const auto again = launched.connect();
  ASSERT_EQ(::send(again.get(), recorded.data(), recorded.size(), MSG_NOSIGNAL), std::ssize(recorded));
  size_t got = 0;
  for (ssize_t n = 1; n > 0; got += static_cast<size_t>(n))
    n = ::recv(again.get(), bytes.data(), bytes.size(), 0);
  EXPECT_EQ(got, 32u);  // its nonce, and then it hangs up
  ::close(ends[1]);
  launched.coordinator->finish(0);
}

}  // namespace
}  // namespace atelier::cluster
