// From tensors to what kernels/ takes: element type, device and stream.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/kernels.h"

namespace atelier::nn {

// Throws std::logic_error for a type no kernel has.
kernels::ElementType dtype_of(const at::Tensor& t);
// The current stream of the tensor's device.
kernels::LaunchTarget launch_target_of(const at::Tensor& t);
// Where its elements are; null for a tensor that is not there.
inline const void* data_of(const at::Tensor& t) {
  return t.defined() ? t.const_data_ptr() : nullptr;
}
// Rows of this many elements each that make one CPU task worth starting.
int64_t grain(int64_t elements_per_row);

}  // namespace atelier::nn
