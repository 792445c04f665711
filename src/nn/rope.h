// Rotary position embedding from coordinates. Su et al., RoFormer (arXiv 2104.09864), several axes side by
// side.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

namespace atelier::nn {

// One angle for each interleaved pair (x0, x1), (x2, x3), ...
struct Rope {
  at::Tensor cos, sin;  // [n, d/2], float (double when the model computes in double), contiguous
};

// at: integer coordinates [n, axes]; axes: channels of each axis, their sum is the head width. Angles are
// computed in double on the CPU and stored as `type` on `device`. Upstream: diffusers embeddings.py
// get_1d_rotary_pos_embed.
Rope rope_of(const at::Tensor& at, std::span<const int64_t> axes, double theta,
             const at::TensorOptions& options);

}  // namespace atelier::nn
