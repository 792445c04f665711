#include "pipeline/device.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>

#ifdef ATELIER_CUDA
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <new>
#include <string_view>
#include <system_error>

#include "comm/comm.h"

namespace atelier::pipeline {

void prepare_process() {
  comm::set_nccl_defaults();
}

bool is_out_of_memory(const std::exception& e) {
  // A thread that finds no room for its stack.
  if (const auto* system = dynamic_cast<const std::system_error*>(&e))
    return system->code() == std::errc::resource_unavailable_try_again ||
           system->code() == std::errc::not_enough_memory;
  // libtorch's allocator on the CPU has no exception type of its own.
  return dynamic_cast<const c10::OutOfMemoryError*>(&e) || dynamic_cast<const std::bad_alloc*>(&e) ||
         std::string_view(e.what()).find("can't allocate memory") != std::string_view::npos;
}

std::string reason_of(const std::exception& e) {
  const auto* torch = dynamic_cast<const c10::Error*>(&e);
  return torch ? torch->what_without_backtrace() : e.what();
}

void set_tf32(Tf32 mode) {
  at::globalContext().setAllowTF32CuBLAS(mode == Tf32::kOn);
  at::globalContext().setAllowTF32CuDNN(mode == Tf32::kOn);
}

#ifdef ATELIER_CUDA

namespace {
int64_t statistic(c10::Device device, bool peak) {
  if (!device.is_cuda()) return 0;
  using c10::CachingDeviceAllocator::StatType;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  const auto& s = stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)];
  return peak ? s.peak : s.current;
}
const cudaDeviceProp& properties_of(c10::Device device) {
  return *at::cuda::getDeviceProperties(device.has_index() ? device.index() : c10::DeviceIndex(0));
}
}  // namespace

void synchronize(c10::Device device) {
  if (device.is_cuda()) c10::cuda::getCurrentCUDAStream(device.index()).synchronize();
}
int64_t memory_bytes(c10::Device device) {
  if (!device.is_cuda()) return 0;
  return static_cast<int64_t>(properties_of(device).totalGlobalMem);
}
int64_t kept_shapes_bytes(c10::Device device) {
  return device.is_cuda() ? memory_bytes(device) / 16 : int64_t{1} << 30;
}
int64_t allocated_bytes(c10::Device device) {
  return statistic(device, false);
}
int64_t peak_bytes(c10::Device device) {
  return statistic(device, true);
}
int64_t peak_reserved_bytes(c10::Device device) {
  if (!device.is_cuda()) return 0;
  using c10::CachingDeviceAllocator::StatType;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return stats.reserved_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
}
void reset_peak(c10::Device device) {
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
}
void empty_cache(c10::Device device) {
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::emptyCache();
}
void cap_memory(c10::Device device, double fraction) {
  if (device.is_cuda()) c10::cuda::CUDACachingAllocator::setMemoryFraction(fraction, device.index());
}
int cuda_devices() {
  return c10::cuda::device_count();
}
std::string device_name(c10::Device device) {
  return device.is_cuda() ? at::cuda::getDeviceProperties(device.index())->name : "CPU";
}
int cuda_capability(c10::Device device) {
  if (!device.is_cuda()) return 0;
  const auto& properties = properties_of(device);
  return 10 * properties.major + properties.minor;
}
void use_device(c10::Device device) {
  if (!device.is_cuda()) return;
  at::globalContext().lazyInitDevice(at::kCUDA);
  c10::cuda::set_device(device.index());
}

#else

void synchronize(c10::Device) {}
int64_t memory_bytes(c10::Device) {
  return 0;
}
int64_t kept_shapes_bytes(c10::Device) {
  return int64_t{1} << 30;
}
int64_t allocated_bytes(c10::Device) {
  return 0;
}
int64_t peak_bytes(c10::Device) {
  return 0;
}
int64_t peak_reserved_bytes(c10::Device) {
  return 0;
}
void reset_peak(c10::Device) {}
void empty_cache(c10::Device) {}
void cap_memory(c10::Device, double) {}
int cuda_devices() {
  return 0;
}
std::string device_name(c10::Device) {
  return "CPU";
}
int cuda_capability(c10::Device) {
  return 0;
}
void use_device(c10::Device) {}

#endif

}  // namespace atelier::pipeline
