// Windows of thread ranks: peers' memory, and the barrier that orders stores and loads.
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "comm/comm.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// What each rank threw, empty where it threw nothing.
std::vector<std::string> on_ranks(int size, const std::function<void(Comm&)>& body,
                                  std::chrono::milliseconds timeout = 20s) {
  auto transports = connect_local(size, {.timeout = timeout});
  std::vector<int> everyone;
  for (int r = 0; r < size; ++r) everyone.push_back(r);
  std::vector<std::string> errors(everyone.size());
  std::vector<std::thread> threads;
  for (const int r : everyone) {
    threads.emplace_back([&, r] {
      try {
        body(*transports[static_cast<size_t>(r)]->open(everyone, "window"));
      } catch (const Error& error) {
        errors[static_cast<size_t>(r)] =
            str(error.kind() == Kind::kPeer ? "peer: " : "other: ", error.what());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  return errors;
}

at::Tensor numbers(const at::Tensor& bytes) {
  return bytes.view(at::kLong);
}

TEST(Window, WhatPeersStoredIsThereBehindTheBarrier) {
  for (const int size : {1, 2, 4}) {
    const auto errors = on_ranks(size, [](Comm& comm) {
      const auto window = comm.window(8 * comm.size());
      ASSERT_TRUE(window);
      EXPECT_TRUE(numbers(window->local()).eq(0).all().item<bool>());
      window->barrier();
      EXPECT_TRUE(window->peer(comm.rank()).is_alias_of(window->local()));
      for (int round = 1; round < 50; ++round) {
        for (int peer = 0; peer < comm.size(); ++peer) {
          numbers(window->peer(peer))[comm.rank()].fill_(100 * round + 10 * comm.rank() + peer);
        }
        window->barrier();
        for (int from = 0; from < comm.size(); ++from) {
          EXPECT_EQ(numbers(window->local())[from].item<int64_t>(), 100 * round + 10 * from + comm.rank());
        }
        window->barrier();
      }
    });
    EXPECT_THAT(errors, ::testing::Each("")) << size << " ranks";
  }
}

TEST(Window, CopiesLandAtTheSamePlaceOfEveryPeer) {
  for (const int size : {1, 2, 4}) {
    const auto errors = on_ranks(size, [](Comm& comm) {
      const auto window = comm.window(24 * comm.size());  // of which each rank copies the middle third of its
      const auto all = numbers(window->local());          // part
      for (int round = 1; round < 50; ++round) {
        all.narrow(0, 3 * comm.rank(), 3).fill_(100 * round + comm.rank());
        const Range parts[] = {{24 * comm.rank() + 8, 8}, {0, 0}};
        window->barrier();  // all have read what the last round left
        window->copy_to_peers(parts).wait();
        window->barrier();
        for (int from = 0; from < comm.size(); ++from) {
          EXPECT_EQ(all[3 * from + 1].item<int64_t>(), 100 * round + from);
          if (from != comm.rank()) EXPECT_EQ(all[3 * from].item<int64_t>(), 0);
        }
      }
    });
    EXPECT_THAT(errors, ::testing::Each("")) << size << " ranks";
  }
}

TEST(Window, SeveralOfAGroupAreApart) {
  const auto errors = on_ranks(2, [](Comm& comm) {
    const auto a = comm.window(8), b = comm.window(16);
    numbers(a->peer(1 - comm.rank())).fill_(1);
    numbers(b->peer(1 - comm.rank())).fill_(2);
    a->barrier();
    EXPECT_EQ(numbers(a->local()).item<int64_t>(), 1);
    EXPECT_EQ(b->local().numel(), 16);
  });
  EXPECT_THAT(errors, ::testing::Each(""));
}

TEST(Window, RanksThatWantDifferentSizesAreToldSo) {
  const auto errors = on_ranks(2, [](Comm& comm) { comm.window(8 + 8 * comm.rank()); });
  for (const auto& error : errors) EXPECT_THAT(error, HasSubstr("peer: group window: "));
}

TEST(Window, AnAbortEndsTheBarrier) {
  const auto errors = on_ranks(2, [](Comm& comm) {
    const auto window = comm.window(8);
    if (comm.rank() == 1) return comm.abort();
    window->barrier();
  });
  EXPECT_THAT(errors[0], HasSubstr("aborted"));
}

}  // namespace
}  // namespace atelier::comm
