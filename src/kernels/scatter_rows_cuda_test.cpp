// scatter_rows on a device.
#include "kernels/cuda_test_support.h"
#include "kernels/scatter_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

TEST_F(CudaKernels, ScatterRowsMatchesItsTwin) {
  for (const auto& c : kScatterCases) {
    ScatterData data(c);
    const DeviceMemory from(std::ssize(data.from));
    must(cudaMemcpy(from.at(0), data.from.data(), data.from.size(), cudaMemcpyHostToDevice));
    std::vector<DeviceMemory> memory;
    std::vector<void*> targets;
    for (const auto& to : data.to) {
      targets.push_back(memory.emplace_back(std::ssize(to)).at(0));
      must(cudaMemcpy(targets.back(), to.data(), to.size(), cudaMemcpyHostToDevice));
    }
    must(cudaDeviceSynchronize());
    scatter_rows(device(), scatter_of(c, from.at(0), targets));
    wait();
    for (size_t t = 0; t < targets.size(); ++t)
      must(cudaMemcpy(data.to[t].data(), targets[t], data.to[t].size(), cudaMemcpyDeviceToHost));
    EXPECT_EQ(data.to, data.expected) << c.row_bytes;
  }
}

}  // namespace
}  // namespace atelier::kernels
