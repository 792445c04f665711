// The queue: hand-out, retries, lost groups, several threads.
#include "jobs/queue.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>

namespace atelier::jobs {
namespace {

std::vector<std::vector<request::Request>> some(int count, int size) {
  std::vector<std::vector<request::Request>> out;
  for (int i = 0; i < count; ++i) {
    if (i % size == 0) out.emplace_back();
    out.back().emplace_back().index = i;
    out.back().back().name = std::to_string(i);
  }
  return out;
}

TEST(Queue, HandsOutInOrderUntilDone) {
  Queue q(some(5, 2), 3);
  EXPECT_EQ(q.pending(), 5);
  const auto a = q.take(0), b = q.take(1), c = q.take(0);
  EXPECT_EQ(a->requests[0].index, 0);
  EXPECT_EQ(b->requests[0].index, 2);
  EXPECT_EQ(c->requests.size(), 1U);
  EXPECT_FALSE(q.take(1));
  q.done(a->id);
  q.done(b->id);
  EXPECT_FALSE(q.is_finished());
  q.done(c->id);
  q.done(c->id);
  EXPECT_TRUE(q.is_finished());
  EXPECT_EQ(q.finished(), 5);
}

TEST(Queue, RetriesEachItemAloneUpToTheLimit) {
  Queue q(some(2, 2), 2);
  q.failed(q.take(0)->id, "e1");
  auto a = q.take(0);
  EXPECT_EQ(a->requests.size(), 1U);
  EXPECT_EQ(a->requests[0].index, 0);
  EXPECT_EQ(a->attempt, 2);
  q.failed(a->id, "e2");
  a = q.take(0);
  EXPECT_EQ(a->requests[0].index, 0);
  EXPECT_EQ(a->attempt, 3);
  q.failed(a->id, "e3");
  ASSERT_EQ(q.failures().size(), 1U);
  EXPECT_EQ(q.failures()[0].reason, "e3");
  EXPECT_EQ(q.failures()[0].attempts, 3);
  q.done(q.take(0)->id);
  EXPECT_TRUE(q.is_finished());
  EXPECT_EQ(q.finished(), 1);
  EXPECT_EQ(q.retries(), 3);
}

TEST(Queue, WrittenItemsAreNotDrawnAgain) {
  Queue q(some(3, 3), 1);
  const auto a = q.take(0);
  q.request_done(a->id, "1");
  q.request_done(a->id, "1");
  q.failed(a->id, "e");
  EXPECT_EQ(q.take(0)->requests[0].name, "0");
  EXPECT_EQ(q.take(0)->requests[0].name, "2");
  EXPECT_FALSE(q.take(0));
  EXPECT_EQ(q.finished(), 1);
}

TEST(Queue, GivingUpSkipsRetries) {
  Queue q(some(2, 2), 5);
  const auto a = q.take(0);
  q.give_up(a->id, "0", "NaN");
  q.done(a->id);
  EXPECT_EQ(q.finished(), 1);
  ASSERT_EQ(q.failures().size(), 1U);
  EXPECT_EQ(q.failures()[0].request.name, "0");
}

TEST(Queue, NoRetriesMeansOneTry) {
  Queue q(some(1, 1), 0);
  q.failed(q.take(0)->id, "e");
  EXPECT_TRUE(q.is_finished());
  EXPECT_EQ(q.failures().size(), 1U);
}

TEST(Queue, ThreadsWithFaultsFinishEveryItemOnce) {
  Queue q(some(300, 3), 1000);
  std::mutex mutex;
  std::map<std::string, int> written;
  std::vector<std::thread> groups;
  for (int g = 0; g < 4; ++g) {
    groups.emplace_back([&, g] {
      std::mt19937 random(static_cast<unsigned>(g));
      while (!q.is_finished()) {
        const auto batch = q.take(g);
        if (!batch) {
          std::this_thread::yield();
          continue;
        }
        bool is_dead = false;
        for (const request::Request& request : batch->requests) {
          if (random() % 5 == 0) {
            is_dead = true;
            break;
          }
          q.request_done(batch->id, request.name);
          const std::scoped_lock lock(mutex);
          ++written[request.name];
        }
        if (is_dead) {
          q.failed(batch->id, "error");
        } else {
          q.done(batch->id);
        }
      }
    });
  }
  for (auto& group : groups) group.join();
  EXPECT_TRUE(q.is_finished());
  EXPECT_EQ(q.finished(), 300);
  EXPECT_EQ(written.size(), 300U);
  for (const auto& [name, times] : written) EXPECT_EQ(times, 1) << name;
}

}  // namespace
}  // namespace atelier::jobs
