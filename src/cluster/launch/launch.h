// Runs whose processes somebody else starts: torchrun, mpirun, srun, or this program on every node.
#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "cluster/channel.h"
#include "cluster/process.h"
#include "cluster/protocol.h"

namespace atelier::cluster {

// One launched process: it stands for the ranks [rank, rank + ranks) of `size`.
struct LauncherEnv {
  std::string launcher;  // "torchrun", "mpirun", "srun", "--span_nodes"
  int rank = 0, size = 1, ranks = 1;
  int local_rank = 0, local_size = 1;  // of `rank`, on its host
  std::string host;                    // of rank 0
  int port = 0;                        // control messages use the first free one of the kPorts behind it
  std::string key;                     // what the processes of one run have in common
  std::string variables;               // that say so, for people: "RANK=0 WORLD_SIZE=2 MASTER_ADDR=..."

  static constexpr int kPorts = 8;
};

// The value of a variable; none if it is not set.
using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;

// Where the processes of a run meet, and who says so: "at 10.0.0.1, ports 29501 to 29508 (RANK=0
// WORLD_SIZE=2)".
std::string meeting_text(const LauncherEnv& env);

// What the environment says about an outer launcher; none for a process that was started alone. Throws
// Error(kUsage) naming the variable that is missing or wrong.
std::optional<LauncherEnv> find_launcher_env(const EnvironmentLookup& environment);

// --span_nodes: `nodes` processes, one per node, with `ranks` ranks in all, as many on each node. Throws
// Error(kUsage).
struct NodeSpan {
  int node = 0, nodes = 1, ranks = 1;
  std::string host;  // of node 0
  int port = 29500;
  std::string key;  // a secret that all nodes know; empty: messages are only told apart from other runs'
};
LauncherEnv spanning(const NodeSpan& span);

// The first host of a Slurm list such as "gpu[03-05,9],login1": "gpu03".
std::string first_host(const std::string& list);

// At the process of rank 0: where the other launched processes report, and the workers that they start on
// order. A connection that says nothing holds up nobody.
class Coordinator {
 public:
  // A worker that has come, or (no channel) one that has ended, or (start -1) one whose launched process is
  // gone, so that it cannot be started again.
  struct AgentEvent {
    int rank = 0, start = -1;
    int local_rank = 0, local_size = 1;
    std::string host, what;
    std::unique_ptr<Channel> channel;
  };

  // Throws Error(kUsage) for an address that is not of this host, Error(kPeer) when all ports are taken.
  explicit Coordinator(LauncherEnv env);
  ~Coordinator();  // finish(1), if nobody has

  const LauncherEnv& env() const { return env_; }
  int wake_fd() const { return wake_.get(); }  // readable when there are events
  std::vector<AgentEvent> take_events();
  // Workers for those of the ranks that are not this process's own, in place of those of earlier starts.
  void start(RankRange ranks, int number);
  void end_workers(RankRange ranks);
  // Waits up to kPatience, up to kStopPatience of a run that was interrupted, for processes that have not
  // come yet, and tells all of them their exit code.
  void finish(int code);

  static constexpr std::chrono::seconds kPatience{10}, kStopPatience{1};
  static constexpr std::chrono::seconds kTold{3};  // of silence before a line says who is waited for

 private:
  struct AgentConnection {
    RankRange ranks;
    std::string host;
    std::unique_ptr<Channel> channel;
  };
  // A connection whose hello has not come yet.
  struct Greeting {
    std::unique_ptr<Channel> channel;
    std::chrono::steady_clock::time_point until;
  };
  void work(const std::stop_token& stop);
  void turn();
  void accept();
  bool hear_greeting(Greeting& greeting);
  void listen(AgentConnection& agent);
  void tell(int rank, const char* kind, int start);
  void add(AgentEvent event);
  int present() const;  // ranks whose processes are here
  void tell_of_waiting();

  const LauncherEnv env_;
  Descriptor listener_, wake_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Greeting> greetings_;
  std::vector<AgentConnection> agents_;
  std::vector<AgentEvent> events_;
  std::vector<int> starts_;  // by rank, what was ordered last; -1: nothing
  bool is_finished_ = false, has_told_ = false;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  int lost_ = 0;  // ranks of processes that came and are gone
  std::jthread thread_;
};

// At the other processes: starts workers when rank 0 says so. Returns rank 0's exit code, or 1 after a
// message when rank 0 cannot be reached in `search`, or is gone.
int run_node_agent(const LauncherEnv& env, std::chrono::seconds search = std::chrono::seconds(120));

}  // namespace atelier::cluster
