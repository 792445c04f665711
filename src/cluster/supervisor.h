// Watches the worker processes of a run: gives them batches, notices those that die or fall silent, starts
// all again.
#pragma once
#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "cluster/process.h"
#include "cluster/retry_policy.h"
#include "cluster/worker_group.h"

namespace atelier::cluster {

class Supervisor {
 public:
  // rally: null when all ranks are processes of this one.
  Supervisor(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop,
             Coordinator* coordinator);
  // What run_job promises.
  RunResult run();

  static constexpr std::chrono::seconds kSilence{10};       // without a heartbeat (every 0.5 s)
  static constexpr std::chrono::milliseconds kGrace{1000};  // between SIGTERM and SIGKILL
  static constexpr std::chrono::seconds kShutdownGrace{5};  // for workers to leave by themselves

 private:
  using Clock = std::chrono::steady_clock;
  struct InFlightBatch {
    jobs::Batch batch;  // without the pictures that are written
    Clock::time_point since;
    bool is_drawn = false;
  };
  struct Group {
    std::vector<InFlightBatch> in_flight;
    std::deque<jobs::Batch> requeued;  // lent to it when workers died by no fault of theirs: drawn first
  };
  struct Rank {
    bool has_spoken = false, is_ready = false;
    Clock::time_point heard;
    int64_t batch = 0;
    std::string phase = "start";
    int step = 0;
  };
  // Why workers must start again. Of several reasons the weightiest is the cause, others follow from it.
  enum class Severity { kPeer, kLate, kSilent, kFailed, kGone };
  struct WorkerFailure {
    int rank = 0;
    Severity severity = Severity::kGone;
    Kind kind = Kind::kPeer;
    std::string reason;
    int64_t batch = 0;
    bool is_final = false, is_loading = false;
  };

  bool serve();  // false when there is trouble
  void on_message(const WorkerGroup::WorkerEvent& event);
  void on_worker_failed(int rank, const Json& message);
  void hear_drawn(int group, const Json& message);
  void on_image_written(int group, const Json& message);
  void watch_clocks();
  void watch_in_flight(Clock::time_point now);
  void dispatch();
  bool dispatch_to(int group);
  void add(WorkerFailure failure);
  bool is_over() const;
  void on_failures();
  void attribute(const WorkerFailure& cause);
  void check_start(const WorkerFailure& cause);
  void shutdown();
  void interrupt();
  void remove_temporaries() const;

  int ranks_per_group() const { return workers_->size() / job_.engine.layout.data; }
  int group_of(int rank) const { return rank / ranks_per_group(); }
  bool is_group_ready(int group) const;
  int latest_rank(int group) const;
  InFlightBatch* find(int group, int64_t batch);
  void drop(int group, int64_t batch);

  const Job& job_;
  jobs::Queue& queue_;
  const Events& events_;
  std::stop_token stop_;
  Coordinator* const coordinator_;
  Descriptor stop_fd_;
  RetryPolicy retry_policy_;
  std::optional<WorkerGroup> workers_;
  std::vector<Group> groups_;
  std::vector<Rank> ranks_;
  std::map<int, RankStats> stats_;
  std::vector<WorkerFailure> failures_;
  Clock::time_point started_, looked_, failed_at_;
  bool is_ready_ = false;
  std::string cause_;  // of the last trouble
  int failed_starts_ = 0, fruitless_ = 0, without_picture_ = 0, restarts_ = 0;
};

}  // namespace atelier::cluster
