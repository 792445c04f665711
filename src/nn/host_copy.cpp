#include "nn/host_copy.h"

#include <ATen/ops/empty.h>

namespace atelier::nn {

at::Tensor queued_copy(const at::Tensor& host, const at::TensorOptions& options) {
  if (!options.device().is_cuda()) return host.to(options);
  auto pinned = at::empty(host.sizes(), at::TensorOptions(options.dtype()).pinned_memory(true));
  pinned.copy_(host);
  return pinned.to(options.device(), options.dtype().toScalarType(), /*non_blocking=*/true);
}

}  // namespace atelier::nn
