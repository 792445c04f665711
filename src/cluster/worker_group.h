// The workers of one start of a run, here and at other launched processes: messages to and from them, their
// ends.
#pragma once
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cluster/channel.h"
#include "cluster/job.h"
#include "cluster/launch/launch.h"
#include "cluster/process.h"
#include "cluster/protocol.h"

namespace atelier::cluster {

class WorkerGroup {
 public:
  struct WorkerEvent {
    int rank = 0;
    Json message;           // null: the worker is gone
    std::string what;       // how, for people
    bool is_final = false;  // and cannot be started again
  };

  // rally: null when all ranks are here. Starts a worker per rank and hands it the job. number: of earlier
  // starts. Throws Error(kCapacity) when the system gives no processes.
  WorkerGroup(const Job& job, Coordinator* coordinator, int number);
  ~WorkerGroup();  // ends them

  int size() const { return static_cast<int>(workers_.size()); }
  // "rank 2 (process 4711)", "rank 5 at node3".
  std::string name(int rank) const;
  // What came until `time` has passed; returns earlier when something comes or `wake` becomes readable.
  std::vector<WorkerEvent> wait(std::chrono::milliseconds time, int wake);
  void send(int rank, const Json& message);
  // Has this worker ever reported?
  bool has_come(int rank) const { return workers_[static_cast<size_t>(rank)].channel != nullptr; }
  bool is_stopped(int rank) const;
  // Ends all at once, at most `grace` after asking.
  void end(std::chrono::milliseconds grace);
  // Process numbers of the workers that ran here.
  std::vector<pid_t> processes() const;

 private:
  struct WorkerHandle {
    std::optional<Child> child;
    std::unique_ptr<Channel> channel;
    std::string host;
    bool is_gone = false;
  };
  void start_here(int rank);
  void add_arrivals(std::vector<WorkerEvent>& events);
  void read(int rank, std::vector<WorkerEvent>& events);
  void send_job(int rank, int local_rank, int local_size);

  const Job& job_;
  Coordinator* const coordinator_;
  const int number_;
  Descriptor rendezvous_;
  std::string rendezvous_host_;
  int rendezvous_port_ = 0;
  std::vector<WorkerHandle> workers_;
};

}  // namespace atelier::cluster
