// Several threads read file bytes into a ring of pinned buffers while earlier buffers are on their way to the
// device; types are converted there. Memory on the host: the ring.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>

#include "weights/tensors.h"
#include "weights/upload.h"

namespace atelier::weights {
namespace {

constexpr int64_t kSlotBytes = 16 << 20;
constexpr int64_t kTaskBytes = 1 << 20;  // what one thread reads at a time
constexpr int64_t kAlign = 256;

// One pinned buffer, filled from front to back; `free` is reached when everything queued from it has arrived.
struct StagingBuffer {
  std::byte* data = nullptr;
  int64_t used = 0;
  cudaEvent_t free = nullptr;
  cudaStream_t stream = nullptr;
};

class CudaUploader : public Uploader {
 public:
  explicit CudaUploader(c10::Device device) : device_(device) {
    const c10::cuda::CUDAGuard guard(device_);
    try {
      for (auto& slot : slots_) {
        C10_CUDA_CHECK(cudaHostAlloc(reinterpret_cast<void**>(&slot.data), kSlotBytes, cudaHostAllocDefault));
        C10_CUDA_CHECK(cudaEventCreateWithFlags(&slot.free, cudaEventDisableTiming));
      }
    } catch (...) {
      release();
      throw;
    }
  }

  ~CudaUploader() override { release(); }

  void upload(std::span<const Band> bands, at::Tensor& out, ThreadPool& pool) override {
    const c10::cuda::CUDAGuard guard(device_);
    const auto stream = c10::cuda::getCurrentCUDAStream(device_.index());
    for (const auto& band : bands) {
      const int64_t size = size_of(band.dtype), most = kSlotBytes / size;
      for (int64_t e = 0; e < band.elements; e += most) {
        const Range part{e, std::min(most, band.elements - e)};
        StagingBuffer& slot = room_for(part.size * size, stream);
        std::byte* const staged = slot.data + slot.used;
        fill(band, part, staged, pool);
        send(band, part, staged, out, stream);
        slot.used += (part.size * size + kAlign - 1) / kAlign * kAlign;
        C10_CUDA_CHECK(cudaEventRecord(slot.free, stream));
      }
    }
  }

 private:
  // The current slot if `bytes` still fit, or the next one once the device is done with it.
  StagingBuffer& room_for(int64_t bytes, cudaStream_t stream) {
    if (slots_[current_].used + bytes > kSlotBytes || slots_[current_].stream != stream) {
      current_ = (current_ + 1) % slots_.size();
      C10_CUDA_CHECK(cudaEventSynchronize(slots_[current_].free));
      slots_[current_].used = 0;
      slots_[current_].stream = stream;
    }
    return slots_[current_];
  }

  static void fill(const Band& band, Range part, std::byte* staged, ThreadPool& pool) {
    const int64_t size = size_of(band.dtype), step = kTaskBytes / size;
    pool.run((part.size + step - 1) / step, [&](int64_t task) {
      const int64_t begin = task * step, n = std::min(step, part.size - begin);
      copy_out(band, {part.begin + begin, n}, staged + begin * size);
    });
  }

  static void send(const Band& band, Range part, const std::byte* staged, at::Tensor& out,
                   cudaStream_t stream) {
    const auto bytes = static_cast<size_t>(part.size * size_of(band.dtype));
    at::Tensor to = out.view({-1}).narrow(0, band.first + part.begin, part.size);
    const auto stored = to_torch(band.dtype);
    at::Tensor raw = stored == out.scalar_type() ? to : at::empty({part.size}, out.options().dtype(stored));
    C10_CUDA_CHECK(cudaMemcpyAsync(raw.data_ptr(), staged, bytes, cudaMemcpyHostToDevice, stream));
    if (stored != out.scalar_type()) to.copy_(raw);
  }

  // At exit the driver may be gone already: errors do not matter here.
  void release() noexcept {
    for (auto& slot : slots_) {
      if (slot.free != nullptr) {
        static_cast<void>(cudaEventSynchronize(slot.free));
        static_cast<void>(cudaEventDestroy(slot.free));
      }
      if (slot.data != nullptr) static_cast<void>(cudaFreeHost(slot.data));
    }
  }

  c10::Device device_;
  std::array<StagingBuffer, 4> slots_;
  size_t current_ = 0;
};

}  // namespace

std::unique_ptr<Uploader> make_uploader(c10::Device device) {
  return std::make_unique<CudaUploader>(device);
}

}  // namespace atelier::weights
