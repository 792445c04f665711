// Fills of a recorded graph as kernels: the same bytes, in the same order.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "kernels/graph_fills.h"

namespace atelier::kernels {
namespace {

class GraphFillsCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists("/dev/nvidia0")) GTEST_SKIP() << "no GPU";
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    for (char** one : {&memory_, &copy_}) ASSERT_EQ(cudaMalloc(one, kBytes), cudaSuccess);
  }
  void TearDown() override {
    cudaFree(memory_);
    cudaFree(copy_);
    if (stream_) cudaStreamDestroy(stream_);
  }
  // A fill, a copy of what it left, and a second fill that must come after the copy.
  void record_work() {
    cudaMemsetAsync(memory_, 7, kBytes, stream_);
    cudaMemsetAsync(memory_ + 3, 9, 5, stream_);  // odd bytes
    cudaMemcpyAsync(copy_, memory_, kBytes, cudaMemcpyDeviceToDevice, stream_);
    cudaMemsetAsync(memory_, 1, kBytes, stream_);
  }
  std::vector<unsigned char> bytes_of(const void* from) {
    std::vector<unsigned char> bytes(kBytes);
    cudaMemcpy(bytes.data(), from, kBytes, cudaMemcpyDeviceToHost);
    return bytes;
  }

  static constexpr size_t kBytes = 3 << 20;
  cudaStream_t stream_ = nullptr;
  char* memory_ = nullptr;
  char* copy_ = nullptr;
};

TEST_F(GraphFillsCuda, LeaveTheSameBytesInTheSameOrder) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  record_work();
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  EXPECT_EQ(fills_to_kernels(graph), 3);
  EXPECT_EQ(fills_to_kernels(graph), 0);
  cudaGraphExec_t run = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&run, graph, 0), cudaSuccess);
  std::vector<unsigned char> expected(kBytes, 7);
  std::fill_n(expected.begin() + 3, 5, static_cast<unsigned char>(9));
  for (int round = 0; round < 100; ++round) {
    ASSERT_EQ(cudaGraphLaunch(run, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    ASSERT_EQ(bytes_of(copy_), expected);
    ASSERT_EQ(bytes_of(memory_), std::vector<unsigned char>(kBytes, 1));
  }
  cudaGraphExecDestroy(run);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace atelier::kernels
