// Workers that stay loaded and draw one batch after another: submit, cancel, and what became of it.
#pragma once
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "cluster/pool_events.h"
#include "cluster/replica.h"

namespace atelier::comm {
class RendezvousServer;
}

namespace atelier::cluster {

// Each data-parallel group is a replica of its own: ranks of different groups never talk, and one that breaks
// is started again alone. Batches wait in one queue and go to whichever replica is free.
//
// A cancelled batch that waits is dropped at once; one that is being generated ends within a step of its
// furthest rank (step_gate.h); one that is generated is stored.
class WorkerPool {
 public:
  // coordinator: null when all ranks are processes of this one. Starts nothing yet. Throws Error(kUsage)
  // unless the layout's ranks are the launcher's.
  WorkerPool(Job job, Coordinator* coordinator);
  ~WorkerPool();  // kills, and removes what workers of this host have begun to write

  // Any thread. Requests of one batch agree in what their shape depends on. Throws Error(kUsage) for none.
  int64_t submit(std::vector<request::Request> requests);
  // Its memory must stay as it is until the batch is done.
  int64_t submit(TensorCall call);
  void cancel(int64_t batch);
  void wake();  // lets poll() return

  // Starts workers, hands out batches, waits for what happens, at most about this long. Always on the same
  // thread, which must live as long as the pool: workers die with the thread that started them. Throws when
  // no worker can go on: Error(kCheckpoint, kUsage, kCapacity) for what no start could mend, Error(kPeer)
  // after too many.
  std::vector<PoolEvent> poll(std::chrono::milliseconds time);
  // Lets the workers leave by themselves, for some seconds. stop ends the wait.
  void shut_down(const std::stop_token& stop);

  std::vector<RankStats> stats() const;  // as of each rank's last batch
  int restarts() const { return restarts_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Open {
    int unfinished = 0, cancelled = 0;  // requests
    bool is_cancelled = false;
  };
  int64_t submit(PendingBatch batch);
  void wait(std::chrono::milliseconds time);
  void start_replicas();
  void take_commands();
  void take_arrivals();
  void read(Replica& replica);
  void take(Replica::Returned returned);
  void check_replicas();
  void settle(Replica& replica);
  void give_up(Replica& replica);
  void act(Replica& replica, const RetryPolicy::Decision& decision);
  void retry_or_fail(PendingBatch batch, std::optional<Kind> kind, const std::string& reason);
  void wait_again(PendingBatch batch);
  void drop(const PendingBatch& batch);
  void finish(int64_t id, int requests);
  void dispatch();

  const Job job_;
  Coordinator* const coordinator_;
  Descriptor wake_;
  std::unique_ptr<comm::RendezvousServer> store_;
  RetryPolicy policy_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  std::deque<PendingBatch> waiting_;
  std::map<int64_t, Open> open_;  // by batch
  std::vector<PoolEvent> events_;
  std::optional<Error> end_;  // told after the events that came before it
  int64_t last_run_ = 0;
  int restarts_ = 0;
  Clock::time_point looked_;
  std::thread::id owner_;

  std::mutex mutex_;  // of what other threads ask for
  int64_t last_id_ = 0;
  std::vector<PendingBatch> submitted_;
  std::vector<int64_t> cancelled_;
};

}  // namespace atelier::cluster
