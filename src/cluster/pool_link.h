// A worker's end of the channel to its pool.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "cluster/channel.h"
#include "cluster/step_gate.h"

namespace atelier::cluster {

// What heartbeats tell besides the step: where this rank is, so that the pool can name who is late.
struct Whereabouts {
  std::atomic<int64_t> run{0};
  std::atomic<const char*> phase{"start"};
  std::atomic<int64_t> collectives{0};  // begun in this batch
};

// The socket's thread: heartbeats out, orders in. Cancels are answered here, whatever the rank is doing. The
// end of the pool is the end of the process.
class PoolLink {
 public:
  PoolLink(Channel& channel, const Whereabouts& whereabouts, StepGate& gate);
  ~PoolLink();

  // The next order that is not this thread's own.
  Json wait();
  // After a failure this rank only waits for its end. A stop in the middle of a batch comes here too.
  [[noreturn]] void wait_for_end();

 private:
  void work();
  void beat();
  void listen();
  void obey(Json order);

  Channel& channel_;
  const Whereabouts& whereabouts_;
  StepGate& gate_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Json> orders_;
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

}  // namespace atelier::cluster
