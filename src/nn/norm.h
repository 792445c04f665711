// Pointwise-in-tokens normalisation and gating, each one kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "nn/modulation_table.h"
#include "nn/product.h"
#include "nn/seams.h"

namespace atelier::nn {

// layer_norm(x) * (1 + scale) + shift, no affine, eps 1e-6. x [n, B, C] contiguous; shift, scale [B, C].
// Peebles and Xie, DiT (arXiv 2212.09748), adaLN. Written when it is first taken, in the form that is asked
// for: x must not change before.
Activation norm(const at::Tensor& x, const Modulation& m);
// The same where tokens differ in their modulation: in parts from the front, whose tokens sum to those of x.
struct ModulatedTokens {
  int64_t tokens = 0;
  Modulation modulation;
};
Activation norm(const at::Tensor& x, std::span<const ModulatedTokens> parts);
// x += gate * y, in place. x, y [n, B, C] contiguous; gate [B, C].
void gated_(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);
void gated_(const at::Tensor& x, std::span<const ModulatedTokens> parts, const at::Tensor& y);

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
// Root mean square over the channels of all heads together, of which some may be held here.
struct AcrossHeadsNorm {
  at::Tensor weight;  // [heads held * d]
  int64_t width = 0;  // channels of all heads
  double eps = 1e-6;
  Reducer* sum = nullptr;  // over the ranks that hold the other heads; null: none do
};
// Each x [n, B, heads held * d] under the norm of its place, with one sum of squares for all of them.
std::vector<at::Tensor> across_heads(std::span<const AcrossHeadsNorm* const> norms,
                                     std::span<const at::Tensor> xs);

}  // namespace atelier::nn
