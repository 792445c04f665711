// What draws: batches in, events out. Behind it stands a pool of workers, or what stands for one in a test.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "cluster/job.h"
#include "cluster/pool_events.h"
#include "request/request.h"

namespace atelier::server {

class Engine {
 public:
  virtual ~Engine() = default;
  virtual int groups() const = 0;
  // Requests of one batch have one batch key. Their number in events.
  virtual int64_t submit(std::vector<request::Request> requests) = 0;
  virtual void cancel(int64_t batch) = 0;
  // Waits for events, at most about this long. Always on one thread. Throws Error when nothing is drawn any
  // more: what was submitted is lost, and the engine may be started again by another call unless the kind is
  // kUsage, kCheckpoint or kCapacity.
  virtual std::vector<cluster::PoolEvent> poll(std::chrono::milliseconds time) = 0;
  virtual void wake() = 0;       // any thread: lets poll() return
  virtual void shut_down() = 0;  // lets what draws leave by itself
  virtual std::vector<cluster::RankStats> stats() const = 0;
};

std::unique_ptr<Engine> make_pool_engine(const cluster::Job& job);

}  // namespace atelier::server
