// Stored numbers as float: half types, 8-bit floats, and the blocks of ggml (ggml-quants.c). Torch-free.
#pragma once
#include <cstddef>
#include <cstdint>

#include "weights/tensor_file.h"

namespace atelier::weights {

// Whether decode() knows it: floating point and blocks, no integers.
bool can_decode(DType dtype);
// `blocks` blocks (elements of a plain type) at `from`, which needs no alignment. Double is rounded to float.
void decode(DType dtype, const std::byte* from, int64_t blocks, float* to);

}  // namespace atelier::weights
