// Copies to a device that nobody waits for.
#pragma once
#include <ATen/core/Tensor.h>

namespace atelier::nn {

// A tensor of the host as the options want it. On a CUDA device the copy is queued behind what the current
// stream has still to do, through pinned memory, and the host goes on at once (but where no pinned memory of
// an earlier copy is free: making some waits); from pageable memory it would wait until all of that is done.
at::Tensor queued_copy(const at::Tensor& host, const at::TensorOptions& options);

}  // namespace atelier::nn
