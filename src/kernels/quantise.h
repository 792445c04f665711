// Eight-bit operands of matrix products, each written by the kernel that makes its numbers: rows of e4m3
// (Micikevicius et al., FP8 formats for deep learning, arXiv 2209.05433) with one scale each. The contracts
// are those of kernels.h, and one more: CPU and CUDA give equal bytes and equal scales, because both do the
// same operations in the same order. Float whatever the type of the data.
//
// scale: the least power of two with |x| <= 448 * scale for all x of the row; 1 for a row of zeros, NaN
// for one that holds infinity. Bytes: x / scale to the nearest e4m3, ties to even; NaN stays NaN. Dividing
// by a power of two rounds nothing, so the bytes' relative error does not depend on the scale, and a part
// of a row, which may have a smaller scale, has the same values as in the whole, but for those below 2^-6
// of the scale.
#pragma once
#include <span>

#include "kernels/types.h"

namespace atelier::kernels {

// As norm_modulate of kernels.h.
void norm_modulate_e4m3(LaunchTarget where, ElementType dtype, const E4m3Rows& out, const void* x,
                        const void* shift, const void* scale, int64_t n, int64_t batch, int64_t channels,
                        int64_t mod_stride, double eps);

// Rows put together from at most kMaxSegments segments, one after another, under one scale.
void quantise_e4m3(LaunchTarget where, ElementType dtype, const E4m3Rows& out,
                   std::span<const RowSegment> segments, int64_t rows);

}  // namespace atelier::kernels
