// The queue between clients and the engine: who is drawn next, what became of it, who wants to hear of it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/batcher.h"
#include "server/cost_model.h"
#include "server/engine.h"
#include "server/front_end_watch.h"
#include "server/job_record.h"
#include "server/job_writer.h"
#include "server/metrics.h"

namespace atelier::server {

using Bytes = std::shared_ptr<const std::string>;

inline double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct JobEvent {
  enum JobEventKind {
    kAccepted,  // it is on the disk, and waits
    kStarted,
    kStep,
    kPreview,  // what one looks like on its way
    kNote,
    kPicture,      // one is there
    kFinished,     // in any final state; the last event
    kInterrupted,  // the server ends; the job goes on when it is back. The last event
  };
  JobEventKind kind = kAccepted;
  const JobRecord& record;
  int step = 0, steps = 0;                  // kStep: of the batch that draws it
  int picture = 0;                          // kPicture, kPreview
  std::string note = {};                    // kNote
  std::vector<Bytes> pictures = {};         // kFinished: all; kPicture, kPreview: one
  std::optional<double> seconds_left = {};  // predicted, until all of its pictures are there
};
// On the dispatcher's thread; must not wait, nor call the dispatcher but for cancel() and unlisten().
using Listener = std::function<void(const JobEvent&)>;

// kKept: nothing is drawn or told before it is on the disk. kAtOnce: whoever asked waits for the pictures and
// is told nothing before, so that the disk may be slower, or full.
enum class Acceptance { kKept, kAtOnce };

struct JobPage {
  std::vector<JobRecord> records;  // newest first
  bool has_more = false;
};

struct DispatcherOptions {
  BatchLimits batch;
  int max_queue = 256, max_per_owner = 64;  // jobs
};

class Dispatcher {
 public:
  using MakeEngine = std::function<std::unique_ptr<Engine>()>;
  // Takes up what the store holds unfinished. The engine is made and used on a thread of its own.
  Dispatcher(DispatcherOptions options, JobStore& store, int keep_finished, Metrics& metrics,
             MakeEngine make_engine);
  ~Dispatcher();

  // Any thread. Gives the job's id: its own, or that of an earlier one of the same owner with the same
  // idempotency key. Throws ApiError: 429 when too much waits, 503 while draining, 400 for a deadline that
  // cannot be met, 422 for an idempotency key of another request.
  std::string submit(JobRecord record, Listener listener = nullptr,
                     Acceptance acceptance = Acceptance::kKept);
  // False if it is unknown or finished.
  bool cancel(const std::string& id);
  // Stops it if it is open; nothing of it is kept, and nobody finds it from now on.
  void forget(const std::string& id);
  double progress(const std::string& id) const;  // of an open job, 0 to 1
  // The events from here on; of a finished job its last one. 0: there is no such job.
  int64_t listen(const std::string& id, Listener listener);
  int64_t listen_all(Listener listener);
  void unlisten(int64_t number);

  std::optional<JobRecord> find(const std::string& id) const;
  JobPage list(JobQuery query) const;
  std::optional<std::string> picture(const JobRecord& job, size_t index) const;
  Json status() const;  // queue, groups, memory
  bool is_ready() const { return is_ready_ && !is_draining_; }
  bool is_draining() const { return is_draining_; }
  const CostModel& costs() const { return costs_; }

  // What no other start can mend, or empty; the server should end then.
  std::optional<Error> fatal() const;
  // Takes nothing more, lets what is drawn finish within this time, and ends the engine. What waits stays
  // in the store.
  void drain(std::chrono::milliseconds grace);

 private:
  struct LiveJob {
    JobRecord record;
    std::vector<Bytes> pictures;  // null: not yet
    std::vector<double> seconds;  // that each took
    int tries = 0, waits_for_memory = 0;
    // When this process had it. Time in which no server ran does not count, nor does a clock that is set.
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
    bool is_queued = false;
    bool is_accepted = false;                                              // on the disk, as one that is open
    bool is_kept = false;                                                  // nothing of it is to be written
    bool is_stored = false;                                                // on the disk as it is
    std::optional<std::chrono::steady_clock::time_point> keep_again = {};  // the store failed
    bool is_unwanted = false;                                              // by its owner
    bool is_being_removed = false;                                         // from the store
    std::chrono::steady_clock::time_point remove_after = {};               // the store failed
    std::map<int64_t, Listener> listeners;
  };
  struct OpenBatch {
    std::vector<WaitingPicture> pictures;
    bool is_generated = false;
    int group = -1, step = 0, steps = 0;
    double since = 0;
  };

  std::string earlier_id(const JobRecord& record, const std::optional<JobRecord>& stored) const;
  void admit(const JobRecord& record) const;  // throws ApiError
  void work();
  void turn(Engine& engine);
  void take_commands(Engine& engine);
  void check_deadlines(Engine& engine);
  void dispatch(Engine& engine);
  void on_broken(const Error& error);
  void queue(LiveJob& job);
  void accept(const std::string& id, const std::string& error);
  void give_up(LiveJob& job, JobState state, int status, const std::string& code, const std::string& message);
  void finish(LiveJob& job);
  void keep(LiveJob& job);
  void keep_again();
  void on_kept(const std::string& id, const std::string& error);
  void forget_kept();
  void remove_unwanted(LiveJob& job);
  FrontEndWatch::Calls calls_of_watch();
  void tell_remote(const EndedJob& job);
  void take_up(JobRecord record);
  void tell_stored(const JobRecord& record, const Listener& listener) const;
  void drop_batches(Engine& engine);
  void tell(LiveJob& job, JobEvent event);
  std::optional<double> seconds_left(const LiveJob& job) const;
  // dispatcher_costs.cpp; seconds, by what is likely or by what is the least
  using Predict = std::optional<double> (CostModel::*)(const BatchWork& batch) const;
  double predicted_wait(int priority, Predict predict) const;  // of a job that came now
  std::optional<double> seconds_of(const std::vector<request::Request>& pictures, Predict predict) const;
  int live_groups() const;
  bool is_idle() const;
  void update_gauges(Engine& engine);

  void on(const cluster::CallAnswered&) {}  // calls of tensors are not its business
  void on(const cluster::CallFailed&) {}
  void on(const cluster::GroupReady& e);
  void on(const cluster::StepDone& e);
  void on(const cluster::PreviewReady& e);
  void on(const cluster::RequestNote& e);
  void on(const cluster::BatchGenerated& e);
  void on(const cluster::ArtifactStored& e);
  void on(const cluster::RequestFailed& e);
  void on(const cluster::BatchDone& e);
  void on(const cluster::GroupRestarted& e);
  void on(const cluster::GroupLost& e);
  bool try_later(LiveJob& job, int64_t batch, int index);
  void take_later();
  LiveJob* job_of(const request::Request& request, int& index);

  const DispatcherOptions options_;
  JobStore& store_;
  Metrics& metrics_;
  const MakeEngine make_engine_;
  CostModel costs_;

  mutable std::mutex mutex_;  // of everything below
  std::map<std::string, std::unique_ptr<LiveJob>> live_;
  std::map<std::pair<std::string, std::string>, std::string> idempotent_;  // of live jobs
  std::map<int64_t, OpenBatch> open_;
  Batcher batcher_;
  std::vector<std::pair<std::chrono::steady_clock::time_point, WaitingPicture>> later_;
  std::map<int64_t, Listener> all_listeners_;
  std::map<int64_t, std::pair<std::string, Listener>>
      remote_listeners_;  // of jobs that other front ends draw
  int64_t last_listener_ = 0;
  std::set<int> ready_groups_, lost_groups_;
  int groups_ = 0;
  std::vector<cluster::RankStats> stats_;
  std::optional<Error> fatal_;
  std::condition_variable changed_;
  bool is_drained_ = false;
  std::chrono::steady_clock::time_point looked_;

  std::atomic<bool> is_ready_ = false, is_draining_ = false, is_over_ = false;
  std::chrono::steady_clock::time_point drain_end_;

  mutable std::mutex command_mutex_;  // of what listeners and the writer ask for
  std::vector<std::function<void(Engine&)>> commands_;
  void command(std::function<void(Engine&)> work);
  Engine* engine_ = nullptr;        // to be woken
  std::set<std::string> open_ids_;  // of jobs that can be cancelled

  std::unique_ptr<JobWriter> writer_;
  std::unique_ptr<FrontEndWatch> watch_;  // null: the store is this process's own
  std::thread thread_;
};

}  // namespace atelier::server
