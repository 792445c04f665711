// A few threads that share numbered tasks. Torch's own pool is not used: its loops are compiled into the
// caller only with OpenMP, and file reads would hold its threads.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace atelier {

class ThreadPool {
 public:
  // Threads start at the first run() with more than one task; the caller of run() is one of `workers`.
  explicit ThreadPool(int workers) : workers_(workers) {}
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  // Calls work(0) ... work(tasks - 1), in any order, at the same time; returns when all are done. Rethrows
  // the first exception. One run at a time: others wait.
  void run(int64_t tasks, const std::function<void(int64_t)>& work);

 private:
  void start();
  void serve();
  void take_tasks(std::unique_lock<std::mutex>& lock);

  int workers_;
  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t next_ = 0, tasks_ = 0, active_ = 0;
  std::exception_ptr failure_;
  bool is_closing_ = false;
};

// For one file that is read or written: at most eight, at most one per core.
int default_workers();

}  // namespace atelier
