// Copies from the host that do not wait for the device.
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "nn/host_copy.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

class CudaHostCopy : public ::testing::Test {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "skipped: no CUDA device here";
  }
  c10::InferenceMode guard_;
};

TEST_F(CudaHostCopy, IsQueuedBehindWorkThatIsNotDone) {
  const auto options = at::TensorOptions(c10::kCUDA).dtype(at::kDouble);
  const auto noise = random({1, 4, 256, 256}, at::kFloat, 1);
  // Making pinned memory waits for the device; what has been made is kept.
  std::vector<at::Tensor> kept;
  for (int i = 0; i < 3; ++i)
    kept.push_back(at::empty(noise.sizes(), at::TensorOptions(at::kDouble).pinned_memory(true)));
  kept.clear();
  auto busy = at::ones({8192, 8192}, options);
  c10::cuda::device_synchronize();
  for (int i = 0; i < 4; ++i) busy = at::matmul(busy, busy) / 8192;  // tens of milliseconds each
  at::cuda::CUDAEvent end_of_work;
  end_of_work.record();
  std::vector<at::Tensor> copies;
  for (int i = 0; i < 3; ++i) copies.push_back(queued_copy(noise * i, options));
  EXPECT_FALSE(end_of_work.query()) << "the host has waited for the device";
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(copies[static_cast<size_t>(i)].cpu().equal((noise * i).to(at::kDouble)));
}

}  // namespace
}  // namespace atelier::nn
