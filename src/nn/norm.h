// Pointwise-in-tokens normalisation and gating, each one kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include "nn/modulation_table.h"
#include "nn/product.h"

namespace atelier::nn {

// layer_norm(x) * (1 + scale) + shift, no affine, eps 1e-6. x [n, B, C] contiguous; shift, scale [B, C].
// Peebles and Xie, DiT (arXiv 2212.09748), adaLN. Written when it is first taken, in the form that is asked for: x must
// not change before.
Activation norm(const at::Tensor& x, const Modulation& m);
// x += gate * y, in place. x, y [n, B, C] contiguous; gate [B, C].
void gated_(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);

struct LayerNorm {
  at::Tensor weight, bias;
  double eps = 1e-5;
  at::Tensor operator()(const at::Tensor& x) const;
};
// Mean square in float whatever the type of x; no mean, no bias. Zhang and Sennrich (arXiv 1910.07467).
struct RmsNorm {
  at::Tensor weight;
  double eps = 1e-6;
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace atelier::nn
