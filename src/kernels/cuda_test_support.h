// What the tests of the CUDA kernels share: device memory, twins of host buffers, a stream, times.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include "kernels/test_support.h"

namespace atelier::kernels::testing {

inline void must(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes) { must(cudaMalloc(&data_, static_cast<size_t>(bytes + 256))); }
  DeviceMemory(DeviceMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  ~DeviceMemory() { cudaFree(data_); }
  void* at(int64_t byte) const { return static_cast<char*>(data_) + byte; }

 private:
  void* data_ = nullptr;
};

// Device twins of host buffers, copied in when first asked for.
class Mirror {
 public:
  void* operator()(const Buffer& b, int64_t element) {
    auto found = memory_.find(&b);
    if (found == memory_.end()) {
      found = memory_.emplace(&b, DeviceMemory(b.bytes())).first;
      must(cudaMemcpy(found->second.at(0), b.data(), static_cast<size_t>(b.bytes()), cudaMemcpyHostToDevice));
      must(
          cudaDeviceSynchronize());  // the copy may still be on its way, and the test's stream would not wait
    }
    return found->second.at(element * size_of(b.type()));
  }
  Buffer back(const Buffer& b) {
    Buffer copy = b;
    must(cudaMemcpy(copy.data(), (*this)(b, 0), static_cast<size_t>(b.bytes()), cudaMemcpyDeviceToHost));
    return copy;
  }

 private:
  std::map<const Buffer*, DeviceMemory> memory_;
};

// Two roundings of numbers that float arithmetic in another order made: one unit in the last place apart at
// most.
inline void expect_same(const Buffer& device, const Buffer& host, double scale = 1) {
  ASSERT_EQ(device.count(), host.count());
  for (int64_t i = 0; i < host.count(); ++i) {
    if (std::isnan(host[i]) && std::isnan(device[i])) continue;
    ASSERT_NEAR(device[i], host[i], 2 * tolerance(host.type(), host[i], scale))
        << name_of(host.type()) << " " << i;
  }
}

class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "skipped: no CUDA device here (" << cudaGetErrorString(status) << ")";
    }
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  LaunchTarget device() const { return {.cuda = true, .stream = stream_}; }
  void wait() const { must(cudaStreamSynchronize(stream_)); }
  double microseconds(int repeats, const std::function<void(int)>& work) const;
  void report(const char* what, double bytes, double us) const;

  cudaStream_t stream_ = nullptr;
};

inline double CudaKernels::microseconds(int repeats, const std::function<void(int)>& work) const {
  cudaEvent_t begin = nullptr, end = nullptr;
  must(cudaEventCreate(&begin));
  must(cudaEventCreate(&end));
  for (int i = 0; i < 8; ++i) work(i);
  must(cudaEventRecord(begin, stream_));
  for (int i = 0; i < repeats; ++i) work(i);
  must(cudaEventRecord(end, stream_));
  must(cudaEventSynchronize(end));
  float ms = 0;
  must(cudaEventElapsedTime(&ms, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return ms * 1000.0 / repeats;
}

inline void CudaKernels::report(const char* what, double bytes, double us) const {
  int id = 0, clock_khz = 0, bus_bits = 0;
  must(cudaGetDevice(&id));
  must(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrMemoryClockRate, id));
  must(cudaDeviceGetAttribute(&bus_bits, cudaDevAttrGlobalMemoryBusWidth, id));
  const double peak = 2e3 * clock_khz * bus_bits / 8 / 1e9, reached = bytes / us / 1e3;
  std::printf("[ bandwidth] %-44s %7.1f us %7.0f GB/s  %3.0f %% of %.0f\n", what, us, reached,
              100 * reached / peak, peak);
}

}  // namespace atelier::kernels::testing
