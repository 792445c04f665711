// One message for all that the leader made, or one error for all ranks; then the next request.
#include "pipeline/leader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <new>
#include <thread>

#include "nn/testing.h"

namespace atelier::pipeline {
namespace {

using nn::has;
using nn::random;

Conditionings plenty() {
  nn::Conditioning a, b;
  a.streams = {random({5, 2, 3}, at::kBFloat16), random({1, 2, 7}, at::kDouble, 2)};
  a.whole = {{"pooled", random({2, 3}, at::kFloat, 3)},
             {"image", random({2, 3, 4, 5}, at::kHalf, 4)},
             {"absent", at::Tensor()},
             {"mask", at::full({2, 9}, int64_t{1} << 40, at::TensorOptions(at::kLong))},
             {"nothing", at::empty({0, 4})},
             {"number", at::full({}, 0.25)},
             {"strided", random({4, 6}).t()}};
  a.lengths = {4, 5};
  a.guidance = 3.1;
  return {a, b};
}

bool same(const at::Tensor& x, const at::Tensor& y) {
  if (!x.defined() || !y.defined()) return x.defined() == y.defined();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() && x.equal(y);
}

bool same(const Conditionings& x, const Conditionings& y) {
  bool all = x.size() == y.size();
  for (size_t i = 0; all && i < x.size(); ++i) {
    all = x[i].lengths == y[i].lengths && x[i].guidance == y[i].guidance &&
          x[i].streams.size() == y[i].streams.size() && x[i].whole.size() == y[i].whole.size();
    for (size_t k = 0; all && k < x[i].streams.size(); ++k) all = same(x[i].streams[k], y[i].streams[k]);
    for (const auto& [name, t] : x[i].whole)
      all = all && y[i].whole.count(name) && same(t, y[i].whole.at(name));
  }
  return all;
}

void on_ranks(int size, const std::function<void(comm::Comm&)>& body) {
  auto transports =
      comm::connect_local(size, {.rendezvous_sends = true, .timeout = std::chrono::seconds(20)});
  std::vector<std::jthread> threads;
  for (auto& transport : transports) {
    threads.emplace_back([&, t = transport.get()] {
      const c10::InferenceMode guard;
      try {
        std::vector<int> ranks;
        for (int r = 0; r < size; ++r) ranks.push_back(r);
        body(*t->open(ranks, "replica"));
      } catch (const std::exception& e) {
        ADD_FAILURE() << "rank " << t->rank() << ": " << e.what();
        t->abort();
      }
    });
  }
}

// Kind and message of the RequestError that every rank must get.
std::string failure(comm::Comm* group, const std::function<Conditionings()>& make, Kind kind) {
  try {
    from_leader(group, c10::kCPU, make);
  } catch (const RequestError& e) {
    return e.kind() == kind ? e.what() : str("another kind: ", e.what());
  }
  return "no error";
}

TEST(FromLeader, EveryRankGetsEveryTensorAsItIs) {
  for (const int size : {2, 4}) {
    on_ranks(size, [](comm::Comm& group) {
      std::atomic<int> calls = 0;
      const auto got = from_leader(&group, c10::kCPU, [&] { return ++calls, plenty(); });
      EXPECT_TRUE(same(got, plenty())) << group.rank();
      EXPECT_EQ(calls, group.rank() == 0 ? 1 : 0);
      EXPECT_TRUE(from_leader(&group, c10::kCPU, [] { return Conditionings{}; }).empty());
    });
  }
  EXPECT_TRUE(same(from_leader(nullptr, c10::kCPU, plenty), plenty()));
}

TEST(FromLeader, WhatTheLeaderThrowsIsThrownByEveryRankAndTheNextRequestIsRight) {
  for (const int size : {2, 4}) {
    on_ranks(size, [](comm::Comm& group) {
      const auto usage = [&] {
        return Conditionings{(throw Error(Kind::kUsage, "too many tokens"), nn::Conditioning())};
      };
      EXPECT_EQ(failure(&group, usage, Kind::kUsage), "too many tokens");
      EXPECT_TRUE(same(from_leader(&group, c10::kCPU, plenty), plenty()));
      const auto odd = []() -> Conditionings { throw std::runtime_error("no text: \xff\xfe"); };
      EXPECT_TRUE(has(failure(&group, odd, Kind::kItem), "no text: "));
      const auto bug = []() -> Conditionings { throw std::logic_error(std::string(10000, 'x')); };
      EXPECT_EQ(failure(&group, bug, Kind::kItem).size(), 10000u);
      EXPECT_TRUE(same(from_leader(&group, c10::kCPU, plenty), plenty()));
    });
  }
}

TEST(FromLeader, TriesOnceMoreWhereMemoryIsShort) {
  on_ranks(2, [](comm::Comm& group) {
    int calls = 0;
    const auto once = [&]() -> Conditionings { return calls++ == 0 ? throw std::bad_alloc() : plenty(); };
    EXPECT_TRUE(same(from_leader(&group, c10::kCPU, once), plenty()));
    const auto always = []() -> Conditionings { throw std::bad_alloc(); };
    EXPECT_NE(failure(&group, always, Kind::kCapacity), "no error");
    EXPECT_TRUE(same(from_leader(&group, c10::kCPU, plenty), plenty()));
  });
}

TEST(FromLeader, ASingleRankSaysThatNothingElseFailed) {
  EXPECT_EQ(failure(
                nullptr, []() -> Conditionings { throw Error(Kind::kUsage, "no"); }, Kind::kUsage),
            "no");
  EXPECT_THROW(from_leader(nullptr, c10::kCPU, []() -> Conditionings { throw std::bad_alloc(); }),
               std::bad_alloc)
      << "whoever called may free memory and try again";
}

}  // namespace
}  // namespace atelier::pipeline
