// The memory that CUDA graphs hold: told by buffers, lent again among recordings on the same ones, given back
// with the last of them.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "pipeline/graph_cache.h"

namespace atelier::pipeline {
namespace {

constexpr int64_t kMany = int64_t{64} << 20;  // bytes

class CudaGraphMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
    sum_ = at::zeros({1}, at::TensorOptions(at::kFloat).device(at::kCUDA));
    before_ = reserved();
  }
  // Run, then recorded: a piece that needs as many bytes for a moment, and adds one to the sum.
  void record(const GraphKey& key, int64_t bytes) {
    for (int i = 0; i < 2; ++i) run(key, bytes);
  }
  void run(const GraphKey& key, int64_t bytes) {
    graphs_.run(key, [&] {
      const auto many = at::full({bytes / 4}, 1.0f, sum_.options());
      sum_.add_(many.narrow(0, bytes / 4 - 1, 1));
    });
  }
  // Besides graphs' own memory it holds some small things of theirs.
  void expect_reserved(int64_t bytes) const {
    EXPECT_GE(reserved() - before_, bytes);
    EXPECT_LE(reserved() - before_, bytes + (int64_t{4} << 20));
  }
  static int64_t reserved() {
    namespace allocator = c10::cuda::CUDACachingAllocator;
    allocator::emptyCache();
    return allocator::getDeviceStats(0).reserved_bytes[0].current;
  }

  c10::InferenceMode guard_;
  GraphCache graphs_{cuda_graphs()};
  at::Tensor sum_;
  int64_t before_ = 0;
};

TEST_F(CudaGraphMemory, IsToldByBuffersAndGivenBackWithTheLastOfThem) {
  record({.buffers = 1}, kMany);
  const auto one = graphs_.bytes(1);
  EXPECT_GE(one, kMany);
  EXPECT_LE(one, 2 * kMany);
  record({.buffers = 1, .chunk = 1}, kMany);
  EXPECT_EQ(graphs_.bytes(1), one) << "recordings on the same buffers share it";
  record({.buffers = 2}, kMany);
  EXPECT_GE(graphs_.bytes(2), kMany);
  expect_reserved(graphs_.bytes(1) + graphs_.bytes(2));
  graphs_.forget(1);
  EXPECT_EQ(graphs_.bytes(1), 0);
  expect_reserved(graphs_.bytes(2));
  run({.buffers = 2}, kMany);
  EXPECT_EQ(sum_.to(at::kCPU)[0].item<float>(), 7) << "each piece ran as often as it was asked for";
  record({.buffers = 1}, kMany);
  EXPECT_GE(graphs_.bytes(1), kMany);
  graphs_.forget(1), graphs_.forget(2);
  expect_reserved(0);
}

}  // namespace
}  // namespace atelier::pipeline
