#include "nn/launch_target.h"

#include <algorithm>
#include <stdexcept>

#ifdef ATELIER_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace atelier::nn {

kernels::ElementType dtype_of(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kFloat:
      return kernels::ElementType::kF32;
    case at::kDouble:
      return kernels::ElementType::kF64;
    case at::kBFloat16:
      return kernels::ElementType::kBF16;
    case at::kHalf:
      return kernels::ElementType::kF16;
    default:
      throw std::logic_error("no kernel for this element type");
  }
}

kernels::LaunchTarget launch_target_of(const at::Tensor& t) {
  if (!t.is_cuda()) return {};
#ifdef ATELIER_CUDA
  return {true, c10::cuda::getCurrentCUDAStream(t.get_device()).stream()};
#else
  throw std::logic_error("a CUDA tensor in a build without CUDA");
#endif
}

int64_t grain(int64_t elements_per_row) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, elements_per_row));
}

}  // namespace atelier::nn
