// One group of ranks as its pool sees it: what it has been given, how far it is, what is wrong with it.
#pragma once
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/pool_events.h"
#include "cluster/retry_policy.h"
#include "cluster/tensor_call.h"
#include "cluster/worker_group.h"

namespace atelier::cluster {

// A submitted batch, or what is left of it: requests, or one call.
struct PendingBatch {
  int64_t id = 0;
  Attempts attempts;
  std::vector<request::Request> requests;
  std::optional<TensorCall> call = {};
  size_t size() const { return call ? 1 : requests.size(); }
};

struct InFlightBatch {
  int64_t run = 0;  // number of this hand-out
  PendingBatch batch;
  std::chrono::steady_clock::time_point since;  // it last got on
  std::vector<bool> is_stored = {};
  bool is_generated = false;  // and being stored
  bool is_cancelled = false;
  std::map<int, int> held = {};     // by rank: the last step begun, as the answers to a cancel come
  int answered = 0;                 // ranks that are done with a call
  std::vector<int64_t> shape = {};  // of its result
  std::string received = {};        // of the artifact that is stored next
  PendingBatch rest() const;        // without what is stored
};

class Replica {
 public:
  using Clock = std::chrono::steady_clock;
  // A batch that its ranks have given back, all in step: they go on.
  struct Returned {
    PendingBatch batch;
    std::optional<Kind> kind;
    std::string reason, phase;
  };
  enum class Status { kLoading, kServing, kEnding, kLost };

  Replica(const Job& job, Coordinator* coordinator, RankRange ranks);

  WorkerGroup& workers() { return workers_; }
  int number() const { return workers_.number(); }
  Status status() const { return status_; }
  const std::map<int, RankStats>& stats() const { return stats_; }  // by rank

  // Workers that the system does not start have failed while loading.
  void start(int store_port);
  // Kills the workers, without waiting; what was in flight is the caller's.
  std::vector<InFlightBatch> end(Status next);
  // The workers of this host are gone, and so is what they had begun to write.
  bool has_ended();
  // They have been told to end for longer than they may take.
  bool is_stuck() const;

  bool can_take() const;
  void dispatch(PendingBatch batch, int64_t run);
  // Asks the ranks to stop where they are. A batch that is generated already is stored.
  void cancel(int64_t id);

  void on_event(const WorkerEvent& event, std::vector<PoolEvent>& events, std::vector<Returned>& returned);
  // Who has been silent or busy for too long. pause: time in which this process itself did not run.
  void check_clocks(Clock::duration pause);
  // What is wrong, a moment after the first sign of it, so that what explains it is heard too.
  const std::vector<WorkerFailure>* failures() const;

  static constexpr std::chrono::seconds kSilence{10};  // without a heartbeat (every 0.5 s)

 private:
  struct Rank {
    bool has_spoken = false, is_ready = false;
    Clock::time_point heard;
    int64_t run = 0;
    std::string phase = "start";
    int step = 0;
    int64_t collectives = 0;
  };
  void on_message(const WorkerEvent& event, std::vector<PoolEvent>& events, std::vector<Returned>& returned);
  void on_piece(InFlightBatch& flight, const Json& message);
  void on_stored(InFlightBatch& flight, const Json& message, std::vector<PoolEvent>& events);
  void on_answered(InFlightBatch& flight, const Json& message, std::vector<PoolEvent>& events);
  void on_failed(int rank, const Json& message, std::vector<Returned>& returned);
  void on_held(InFlightBatch& flight, int rank, int step);
  void on_alive(Rank& rank, const Json& message);
  void fail(WorkerFailure failure);
  void check_rank(int rank, Clock::time_point now);
  void check_batches(Clock::time_point now);
  std::vector<int> latest_ranks() const;
  Rank& at(int rank) { return ranks_[static_cast<size_t>(rank - workers_.ranks().first)]; }
  InFlightBatch* find(int64_t run);
  void drop(int64_t run);

  const Job& job_;
  WorkerGroup workers_;
  Status status_ = Status::kEnding;
  std::vector<Rank> ranks_;
  std::vector<InFlightBatch> in_flight_;
  std::vector<std::string> unfinished_;  // names of what was in flight at the last end
  bool is_cleaned_ = true;               // of what its workers had begun to write
  std::map<int, RankStats> stats_;
  std::vector<WorkerFailure> failures_;
  Clock::time_point started_, failed_, ended_;
};

}  // namespace atelier::cluster
