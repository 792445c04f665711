// From files into CUDA memory. Inside of the room; the implementation is built with CUDA only.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>

#include "weights/slices.h"
#include "base/thread_pool.h"

namespace atelier::weights {

class Uploader {
 public:
  virtual ~Uploader() = default;
  // Queues the copy of all bands into `out` (contiguous, on the uploader's device) on the current stream.
  virtual void upload(std::span<const Band> bands, at::Tensor& out, ThreadPool& pool) = 0;
};

// Throws Error(kUsage) in a build without CUDA.
std::unique_ptr<Uploader> make_uploader(c10::Device device);

}  // namespace atelier::weights
