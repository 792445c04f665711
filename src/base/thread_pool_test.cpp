// Numbered tasks on a few threads.
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <latch>
#include <stdexcept>

namespace atelier {
namespace {

TEST(Threads, RunEveryTaskOnce) {
  ThreadPool pool(3);
  for (const int64_t tasks : {0, 1, 2, 100}) {
    std::vector<std::atomic<int>> ran(static_cast<size_t>(tasks));
    pool.run(tasks, [&](int64_t i) { ++ran[static_cast<size_t>(i)]; });
    for (const auto& times : ran) EXPECT_EQ(times, 1);
  }
}

TEST(Threads, RunTasksAtTheSameTime) {
  std::latch both(2);
  ThreadPool(2).run(2, [&](int64_t) { both.arrive_and_wait(); });  // one thread alone would wait for ever
}

TEST(Threads, HandOnTheFirstExceptionAndWorkOn) {
  ThreadPool pool(2);
  std::atomic<int> begun = 0;
  const auto fails = [&](int64_t i) {
    ++begun;
    if (i == 1) throw std::runtime_error("the second");
  };
  EXPECT_THROW(pool.run(1000, fails), std::runtime_error);
  EXPECT_LT(begun, 1000) << "what has not begun is left out";
  begun = 0;
  pool.run(5, [&](int64_t) { ++begun; });
  EXPECT_EQ(begun, 5);
}

}  // namespace
}  // namespace atelier
