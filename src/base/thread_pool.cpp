#include "base/thread_pool.h"

#include <algorithm>

namespace atelier {

int default_workers() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8);
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    is_closing_ = true;
  }
  wake_.notify_all();
  for (auto& t : threads_) t.join();
}

void ThreadPool::start() {
  while (static_cast<int>(threads_.size()) + 1 < workers_) threads_.emplace_back([this] { serve(); });
}

void ThreadPool::take_tasks(std::unique_lock<std::mutex>& lock) {
  while (next_ < tasks_) {
    const int64_t task = next_++;
    ++active_;
    const auto* work = work_;
    lock.unlock();
    std::exception_ptr failure;
    try {
      (*work)(task);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    --active_;
    if (failure) {
      if (!failure_) failure_ = failure;
      next_ = tasks_;  // the rest is pointless
    }
  }
  if (active_ == 0) done_.notify_all();
}

void ThreadPool::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return is_closing_ || next_ < tasks_; });
    if (is_closing_) return;
    take_tasks(lock);
  }
}

void ThreadPool::run(int64_t tasks, const std::function<void(int64_t)>& work) {
  if (tasks == 1) return work(0);
  const std::lock_guard turn(turn_);
  start();
  std::unique_lock lock(mutex_);
  work_ = &work;
  next_ = 0;
  tasks_ = tasks;
  failure_ = nullptr;
  wake_.notify_all();
  take_tasks(lock);
  done_.wait(lock, [&] { return active_ == 0; });
  next_ = tasks_ = 0;
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace atelier
