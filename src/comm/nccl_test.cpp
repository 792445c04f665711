// Groups of processes over NCCL, one GPU each: the exercises, graphs, and a process that dies.
// Skipped where there are fewer than two GPUs.
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <future>
#include <thread>

#include "base/error.h"
#include "comm/comm.h"
#include "comm/exercises.h"
#include "comm/processes.h"

namespace atelier::comm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using processes::Ranks;

// Device files, not cudaGetDeviceCount(): a process that has touched CUDA cannot fork users of it.
int gpus() {
  int count = 0;
  while (std::filesystem::exists("/dev/nvidia" + std::to_string(count))) ++count;
  return count;
}

std::unique_ptr<Comm> all(Transport& transport) {
  std::vector<int> ranks(transport.size());
  for (int r = 0; r < transport.size(); ++r) ranks[r] = r;
  return transport.open(ranks, "all");
}

c10::Device take_device(const Rendezvous& rendezvous) {
  const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(rendezvous.rank));
  c10::cuda::set_device(device.index());
  return device;
}

void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

class NcclRanks : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    set_nccl_defaults();  // before the ranks are forked
    if (gpus() < GetParam()) GTEST_SKIP() << GetParam() << " GPUs needed, found " << gpus();
  }
  void expect_fine(const Ranks::Scenario& scenario) {
    Ranks ranks(GetParam(), 60s, scenario);
    for (int r = 0; r < GetParam(); ++r) {
      const auto outcome = ranks.join(r, 60s);
      EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0)
          << "rank " << r << ": status " << outcome.status << ", " << outcome.errors;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Nccl, NcclRanks, testing::Values(2, 3, 4));

TEST_P(NcclRanks, DoesWhatLocalGroupsDo) {
  expect_fine([](const Rendezvous& rendezvous) {
    const auto device = take_device(rendezvous);
    const auto transport = connect_nccl(rendezvous);
    exercises::every_verb(*transport, device);
    exercises::same_bits_everywhere(*transport, device);
    exercises::many_groups(*transport, device);
    exercises::events(*transport, device);
  });
}

// One process, one thread per rank, one run after another, as a comparison of layouts does.
TEST_P(NcclRanks, ThreadsOfOneProcessConnectAgainAndAgain) {
  Ranks process(1, 60s, [size = GetParam()](const Rendezvous& rendezvous) {
    for (int round = 0; round < 20; ++round) {
      std::vector<std::future<void>> ranks;
      for (int r = 0; r < size; ++r) {
        ranks.push_back(std::async(std::launch::async, [=] {
          Rendezvous mine = rendezvous;
          mine.file += std::to_string(round);
          mine.rank = r;
          mine.size = size;
          const auto device = take_device(mine);
          const auto transport = connect_nccl(mine);
          exercises::many_groups(*transport, device);
        }));
      }
      for (auto& rank : ranks) rank.get();
    }
  });
  const auto outcome = process.join(0, 120s);
  EXPECT_TRUE(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0)
      << "status " << outcome.status << ", " << outcome.errors;
}

TEST_P(NcclRanks, VerbsAreCaptured) {
  expect_fine([](const Rendezvous& rendezvous) {
    const auto device = take_device(rendezvous);
    const auto transport = connect_nccl(rendezvous);
    const auto comm = all(*transport);
    const int size = comm->size();
    const std::vector<int64_t> ones(size, 1);
    auto in = at::full({size}, comm->rank(), device), out = at::zeros({size}, in.options()),
         sum = at::zeros_like(in);
    const auto work = [&] {
      comm->all_to_all(out, in, ones, ones).wait();
      sum.copy_(out);
      comm->all_reduce(sum).wait();
    };
    const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
    work();
    at::cuda::CUDAGraph graph;
    graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    work();
    graph.capture_end();
    for (int round = 1; round < 4; ++round) {
      in.fill_(round * 10 + comm->rank());
      graph.replay();
      for (int r = 0; r < size; ++r) {
        require(out[r].item<int64_t>() == round * 10 + r, "wrong number from a graph");
        require(sum[r].item<int64_t>() == size * (round * 10 + r), "wrong sum from a graph");
      }
    }
  });
}

// Each rank stores into all windows; also where NVLink or PCIe joins the GPUs of one host.
TEST_P(NcclRanks, StoreIntoEachOthersWindows) {
  expect_fine([](const Rendezvous& meeting) {
    take_device(meeting);
    const auto transport = connect_nccl(meeting);
    const auto comm = all(*transport);
    const auto window = comm->window(comm->size());
    require(window != nullptr, "no window among the GPUs of one host");
    for (int round = 0; round < 100; ++round) {
      for (int peer = 0; peer < comm->size(); ++peer)
        window->peer(peer)[comm->rank()].fill_(round + comm->rank());
      window->barrier();
      for (int r = 0; r < comm->size(); ++r) {
        require(window->local()[r].item<uint8_t>() == round + r, "a wrong number in a window");
      }
      window->barrier();
    }
  });
}

TEST_P(NcclRanks, ADeadPeerIsNoticed) {
  Ranks ranks(GetParam(), 60s, [](const Rendezvous& rendezvous) {
    const auto device = take_device(rendezvous);
    const auto transport = connect_nccl(rendezvous);
    const auto comm = all(*transport);
    comm->barrier();
    processes::say("ready");
    if (rendezvous.rank == 1) std::this_thread::sleep_for(60s);
    auto sum = at::zeros({1000}, device);
    comm->all_reduce(sum).wait();
    cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream().stream());
    comm->barrier();
  });
  for (int r = 0; r < GetParam(); ++r) ASSERT_EQ(ranks.line(r), "ready");
  std::this_thread::sleep_for(200ms);
  const auto start = Clock::now();
  ranks.send_signal(1, SIGKILL);
  for (int r = 0; r < GetParam(); ++r) {
    if (r == 1) continue;
    const auto outcome = ranks.join(r, 20s);
    EXPECT_TRUE(outcome.errors.find("peer: ") != std::string::npos) << "rank " << r << ": " << outcome.errors;
  }
  EXPECT_LT(Clock::now() - start, 5s);
}

}  // namespace
}  // namespace atelier::comm
