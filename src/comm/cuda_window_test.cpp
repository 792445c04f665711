// Windows between two processes that share one GPU: what one stores the other finds, in order, also from CUDA
// graphs, and a lost peer holds nobody up.
#include "comm/cuda_window.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "comm/processes.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using processes::Ranks;

const c10::Device kDevice(c10::kCUDA, 0);
constexpr int64_t kBytes = 5000;

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

// Words of all ranks through a group of CPU tensors.
auto exchange_over(Comm& group) {
  return [&group](const std::string& mine) {
    constexpr int64_t kMost = 512;
    require(mine.size() <= kMost, "a long word");
    auto in = at::zeros({kMost + 1}, at::TensorOptions(at::kByte)),
         all = at::empty({group.size(), kMost + 1}, in.options());
    std::memcpy(in.data_ptr(), mine.data(), mine.size());
    auto sizes = at::full({1}, static_cast<int64_t>(mine.size()), at::TensorOptions(at::kLong));
    auto all_sizes = at::empty({group.size()}, sizes.options());
    const std::vector<int64_t> one(static_cast<size_t>(group.size()), 1), words(one.size(), kMost + 1);
    group.all_gather(all, in, words).wait();
    group.all_gather(all_sizes, sizes, one).wait();
    std::vector<std::string> found;
    for (int r = 0; r < group.size(); ++r) {
      found.emplace_back(all[r].data_ptr<uint8_t>(),
                         all[r].data_ptr<uint8_t>() + all_sizes[r].item<int64_t>());
    }
    return found;
  };
}

void with_window(const Rendezvous& meeting, const std::function<void(Window&, WindowAbort&)>& body) {
  const auto transport = connect_gloo(meeting);
  const std::vector<int> ranks{0, 1};
  const auto group = transport->open(ranks, "window");
  at::globalContext().lazyInitDevice(c10::kCUDA);
  c10::cuda::set_device(0);
  const auto abort = std::make_shared<WindowAbort>();
  const auto window = open_cuda_window(group->rank(), 2, kDevice, kBytes, abort, exchange_over(*group));
  require(window != nullptr, "no window between two processes of one GPU");
  body(*window, *abort);
}

class CudaWindow : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists("/dev/nvidia0")) GTEST_SKIP() << "no GPU";
  }
  static void expect_fine(const Ranks::Scenario& scenario) {
    Ranks ranks(2, 60s, scenario);
    for (int r = 0; r < 2; ++r) {
      const auto outcome = ranks.join(r, 60s);
      EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0)
          << "rank " << r << ": status " << outcome.status << ", " << outcome.errors;
    }
  }
};

// Each round: store into the peer, barrier, read one's own, barrier.
void round_of(Window& window, int rank, int64_t value, at::Tensor& seen) {
  window.peer(1 - rank).fill_(value);
  window.barrier();
  seen.copy_(window.local());
  window.barrier();
}

TEST(CudaWindows, MoreRanksThanABarrierTakesHaveNone) {
  const auto window = open_cuda_window(0, 17, kDevice, kBytes, nullptr, [](const std::string&) {
    ADD_FAILURE() << "nobody else need be asked";
    return std::vector<std::string>{};
  });
  EXPECT_EQ(window, nullptr);
}

TEST_F(CudaWindow, WhatOneStoresTheOtherFinds) {
  expect_fine([](const Rendezvous& meeting) {
    with_window(meeting, [&](Window& window, WindowAbort&) {
      const int rank = meeting.rank;
      require(window.local().numel() == kBytes && window.peer(1).numel() == kBytes, "a wrong size");
      auto seen = at::empty({kBytes}, window.local().options());
      for (int round = 0; round < 200; ++round) {
        round_of(window, rank, (round + rank) % 251, seen);
        require(seen.eq((round + 1 - rank) % 251).all().item<bool>(), "a wrong number in a window");
      }
    });
  });
}

TEST_F(CudaWindow, BarriersAreCaptured) {
  expect_fine([](const Rendezvous& meeting) {
    with_window(meeting, [&](Window& window, WindowAbort&) {
      auto value = at::zeros({1}, window.local().options()), seen = at::empty({kBytes}, value.options());
      const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
      const auto work = [&] {
        window.peer(1 - meeting.rank).copy_(value.expand({kBytes}));
        window.barrier();
        seen.copy_(window.local());
        window.barrier();
      };
      work();
      at::cuda::CUDAGraph graph;
      graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
      work();
      graph.capture_end();
      for (int round = 1; round < 100; ++round) {
        value.fill_(2 * round + meeting.rank);
        graph.replay();
        require(seen.eq(2 * round + 1 - meeting.rank).all().item<bool>(), "a wrong number from a graph");
      }
    });
  });
}

// Beside a stream that goes on, eagerly and from a graph.
TEST_F(CudaWindow, CopiesAreSeenBehindTheBarrierAlsoFromAGraph) {
  expect_fine([](const Rendezvous& meeting) {
    with_window(meeting, [&](Window& window, WindowAbort&) {
      constexpr int64_t kHalf = kBytes / 2;
      auto value = at::zeros({1}, window.local().options()), seen = at::empty({kBytes}, value.options());
      const Range mine{kHalf * meeting.rank, kHalf};
      const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
      const auto work = [&] {
        window.local().narrow(0, mine.begin, mine.size).copy_(value.expand({kHalf}));
        auto copies = window.copy_to_peers(std::span(&mine, 1));
        seen.zero_();  // beside the copies
        copies.wait();
        window.barrier();
        seen.copy_(window.local());
        window.barrier();
      };
      const auto is_right = [&](int round) {
        const auto theirs = seen.narrow(0, kHalf * (1 - meeting.rank), kHalf);
        return theirs.eq((2 * round + 1 - meeting.rank) % 251).all().item<bool>();
      };
      for (int round = 1; round < 100; ++round) {
        value.fill_((2 * round + meeting.rank) % 251);
        work();
        require(is_right(round), "a wrong number in a window");
      }
      at::cuda::CUDAGraph graph;
      graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
      work();
      graph.capture_end();
      for (int round = 1; round < 1000; ++round) {
        value.fill_((2 * round + meeting.rank) % 251);
        graph.replay();
        require(is_right(round), "a wrong number from a graph");
      }
    });
  });
}

TEST_F(CudaWindow, AnAbortEndsABarrierThatNobodyElseCalls) {
  expect_fine([](const Rendezvous& meeting) {
    with_window(meeting, [&](Window& window, WindowAbort& abort) {
      if (meeting.rank == 1) {
        std::this_thread::sleep_for(1s);
        return;
      }
      window.barrier();
      std::thread([&] {
        std::this_thread::sleep_for(200ms);
        abort.set();
      }).join();
      require(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream().stream()) == cudaSuccess,
              "a broken device");
    });
  });
}

}  // namespace
}  // namespace atelier::comm
