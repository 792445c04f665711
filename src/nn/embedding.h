// Sinusoidal embedding of timesteps and other numbers, and the small MLP behind it.
#pragma once
#include <ATen/core/Tensor.h>

#include "nn/linear.h"

namespace atelier::nn {

class Builder;

// values [n], float -> [n, width]: cosines, then sines, of values * 10000^(-i / (width/2)). Angles in float,
// as the reference has them (diffusers embeddings.py get_timestep_embedding, flip_sin_to_cos, no frequency
// shift).
at::Tensor sinusoid(const at::Tensor& values, int64_t width);

// Linear, SiLU, linear.
struct SiluMlp {
  Linear first, second;
  at::Tensor operator()(const at::Tensor& x) const;
};
// linear_1 [between, in] and linear_2 [out, between] of this prefix, as diffusers names them.
SiluMlp silu_mlp(const Builder& b, int64_t in, int64_t between, int64_t out);

}  // namespace atelier::nn
