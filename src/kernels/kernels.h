// The fused pieces of a diffusion backbone that no library has: raw pointers, sizes and a stream. Every
// kernel has a plain CPU twin and a CUDA implementation, chosen by LaunchTarget; zero tokens and zero heads
// are legal everywhere.
//
// Arithmetic is float (double for kF64) with one rounding at the end. Nothing allocates or synchronises, so
// every call can be captured into a CUDA graph. std::logic_error: a call that breaks these contracts, or CUDA
// asked of a build without it. atelier::Error: a launch that the CUDA runtime refused.
#pragma once
#include <span>

#include "kernels/types.h"

namespace atelier::kernels {

// out[n,b,:] = layer_norm(x[n,b,:]) * (1 + scale[b,:]) + shift[b,:], the layer norm without weights.
// x, out: contiguous [n, B, C]; out may equal x. shift, scale: batch 0's row, mod_stride elements between
// batches.
void norm_modulate(LaunchTarget where, ElementType dtype, void* out, const void* x, const void* shift,
                   const void* scale, int64_t n, int64_t batch, int64_t channels, int64_t mod_stride,
                   double eps);

// x[n,b,:] += gate[b,:] * (y[n,b,:] + bias). x, y: contiguous [n, B, C]; gate: batch 0's row, gate_stride
// elements between batches; bias: [C] or null.
void gated_add(LaunchTarget where, ElementType dtype, void* x, const void* y, const void* bias,
               const void* gate, int64_t n, int64_t batch, int64_t channels, int64_t gate_stride);

// x = gelu_tanh(x + bias) in place. x: [rows, channels], row_stride elements between rows; bias: [channels]
// or null.
void gelu_tanh(LaunchTarget where, ElementType dtype, void* x, const void* bias, int64_t rows,
               int64_t channels, int64_t row_stride);

// out[r,c] of x[r,c] and x[r,C+c], as `form` says: x [rows, 2 C], out [rows, C], both contiguous.
void gated_gelu(LaunchTarget where, ElementType dtype, GatedGelu form, void* out, const void* x, int64_t rows,
                int64_t channels);

// out[r,:] = softmax(scale * scores[r,:]), lse[r] = log of the sum of e^(scale * scores[r,:]). scores: [rows,
// columns] contiguous, float, double for kF64, as lse is, which may be null; scale is positive.
void softmax(LaunchTarget where, ElementType dtype, void* out, void* lse, const void* scores, double scale,
             int64_t rows, int64_t columns);

// One stream's q, k and v on their way from the projection into the buffers that a strategy hands out.
struct Placement {
  Source q = {}, k = {}, v = {};  // data may be null: a stream that does not ask has no q
  Norm norm_q = Norm::kNone, norm_k = Norm::kNone;
  const void *weight_q = nullptr, *bias_q = nullptr;  // [d], of the data's type; null: ones, zeros
  const void *weight_k = nullptr, *bias_k = nullptr;
  double eps_q = 1e-6, eps_k = 1e-6;
  // [n, d/2], applied to q and k in interleaved pairs: (x0 cos - x1 sin, x0 sin + x1 cos). Null: no rope. For
  // kF64 the tables hold double.
  const float *cos = nullptr, *sin = nullptr;
  int64_t n = 0, batch = 0, heads = 0;
  int64_t head_dim = 0;  // even, at most kMaxHeadDim
  // At most kMaxTargets; their head ranges partition [0, heads), some may be empty.
  std::span<const Target> targets = {};
  // Where keys and values of all heads go as well, [n, batch, 2, heads, head_dim] each. At most kMaxTargets.
  std::span<void* const> kv_copies = {};
  // Targets and copies hold a byte for each number: the nearest e4m3, without a scale, 448 for all beyond.
  // head_dim is then a multiple of 16, and targets on CUDA begin at multiples of 16 bytes. Both
  // implementations give equal bytes.
  bool is_e4m3 = false;
};

// Norm over each head of q and k, rope, then every head into the target that owns it; v is copied.
// Targets may be another device's memory, where this one can address it.
void place(LaunchTarget where, ElementType dtype, const Placement& placement);

}  // namespace atelier::kernels
