// The worker processes of one replica, here and at other launched processes: messages to and from them, their
// ends.
#pragma once
#include <poll.h>

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

struct WorkerEvent {
  int rank = 0;
  Json message;           // null: the worker is gone
  std::string what;       // how, for people
  bool is_final = false;  // and cannot be started again
};

class WorkerGroup {
 public:
  // ranks: of the pool. coordinator: null when all of them are processes of this one. Starts nothing yet.
  WorkerGroup(const Job& job, Coordinator* coordinator, RankRange ranks);
  ~WorkerGroup();  // ends them

  RankRange ranks() const { return ranks_; }
  int number() const { return ranks_.first / ranks_.count; }
  int starts() const { return starts_; }
  // "rank 2 (process 4711)", "rank 5 of group 1 at node3".
  std::string name(int rank) const;

  // A worker per rank, in place of earlier ones, all of which have ended. store_port: of the rendezvous
  // server on the coordinator's host. Throws Error(kCapacity) when the system gives no processes.
  void start(int store_port);
  void watch(std::vector<pollfd>& entries) const;
  // What came, without waiting.
  std::vector<WorkerEvent> read();
  // A worker, or its end, as the coordinator was told of it.
  std::optional<WorkerEvent> take(Coordinator::AgentEvent event);
  // Never waits.
  void send(int rank, const Json& message);
  void send_all(const Json& message);

  // Has this worker ever reported?
  bool has_come(int rank) const { return member(rank).channel != nullptr; }
  bool is_stopped(int rank) const;
  // Kills all, without waiting. They send no more events.
  void end();
  void leave();                          // those that have not ended by now, behind
  bool has_ended();                      // those of this host
  bool are_gone() const;                 // as far as the coordinator knows
  std::vector<pid_t> processes() const;  // of this host

 private:
  struct WorkerHandle {
    std::optional<Child> child;
    std::unique_ptr<Channel> channel;
    std::string host;
    bool is_gone = false, is_deaf = false;
  };
  const WorkerHandle& member(int rank) const { return members_[static_cast<size_t>(rank - ranks_.first)]; }
  WorkerHandle& member(int rank) { return members_[static_cast<size_t>(rank - ranks_.first)]; }
  void start_here(int rank);
  void read(int rank, std::vector<WorkerEvent>& events);
  void send_job(int rank, int local_rank, int local_size);

  const Job& job_;
  Coordinator* const coordinator_;
  const RankRange ranks_;
  int starts_ = 0, store_port_ = 0;
  Descriptor rendezvous_;
  std::vector<WorkerHandle> members_;
};

}  // namespace atelier::cluster
