// The engine of a real server: a pool of worker processes.
#include <memory>
#include <mutex>

#include "cluster/worker_pool.h"
#include "server/engine.h"

namespace atelier::server {
namespace {

class PoolEngine : public Engine {
 public:
  explicit PoolEngine(const cluster::Job& job)
      : job_(job), pool_(std::make_unique<cluster::WorkerPool>(job, nullptr)) {}

  int groups() const override { return job_.engine.layout.data; }
  int64_t submit(std::vector<request::Request> requests) override {
    return first_ + pool().submit(std::move(requests));
  }
  void cancel(int64_t batch) override { pool().cancel(batch - first_); }

  std::vector<cluster::PoolEvent> poll(std::chrono::milliseconds time) override {
    try {
      auto events = pool().poll(time);
      for (auto& event : events) std::visit([this](auto& e) { renumber(e); }, event);
      return events;
    } catch (const Error&) {
      // numbers of another pool start behind those of this one
      first_ += kApart;
      std::unique_ptr<cluster::WorkerPool> ended;
      const std::scoped_lock lock(mutex_);
      ended = std::move(pool_);
      throw;
    }
  }

  void wake() override {
    const std::scoped_lock lock(mutex_);
    if (pool_) pool_->wake();
  }
  void shut_down() override {
    if (pool_) pool_->shut_down({});
  }
  std::vector<cluster::RankStats> stats() const override {
    return pool_ ? pool_->stats() : std::vector<cluster::RankStats>{};
  }

 private:
  static constexpr int64_t kApart = int64_t{1} << 40;

  cluster::WorkerPool& pool() {
    const std::scoped_lock lock(mutex_);
    if (!pool_) pool_ = std::make_unique<cluster::WorkerPool>(job_, nullptr);
    return *pool_;
  }
  template <class Event>
  void renumber(Event& event) const {
    if constexpr (requires { event.batch; }) event.batch += first_;
  }

  const cluster::Job job_;
  std::mutex mutex_;  // of whether there is a pool
  std::unique_ptr<cluster::WorkerPool> pool_;
  int64_t first_ = 0;
};

}  // namespace

std::unique_ptr<Engine> make_pool_engine(const cluster::Job& job) {
  return std::make_unique<PoolEngine>(job);
}

}  // namespace atelier::server
