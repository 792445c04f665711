#include "nn/memory.h"

#include <ATen/ops/empty.h>

namespace atelier::nn {

at::Tensor PlainMemory::take(int, at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::empty(sizes, options);
}

}  // namespace atelier::nn
