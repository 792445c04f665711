// Checks a call's contract and sends it to the CPU twin or the CUDA implementation.
#include "kernels/kernels.h"

#include "base/check.h"
#include "kernels/cpu.h"
#include "kernels/cuda.h"
#ifndef ATELIER_CUDA
#include <stdexcept>
#endif

namespace atelier::kernels {

#ifndef ATELIER_CUDA
namespace cuda {
namespace {
[[noreturn]] void refuse() {
  throw std::logic_error("internal error: a CUDA kernel was asked of a build without CUDA");
}
}  // namespace
void norm_modulate(void*, const NormModulateCall&) {
  refuse();
}
void norm_modulate_e4m3(void*, const NormModulateE4m3Call&) {
  refuse();
}
void quantise_e4m3(void*, const QuantiseE4m3Call&) {
  refuse();
}
void gated_add(void*, const GatedAddCall&) {
  refuse();
}
void gelu_tanh(void*, const GeluCall&) {
  refuse();
}
void gated_gelu(void*, const GatedGeluCall&) {
  refuse();
}
void softmax(void*, const SoftmaxCall&) {
  refuse();
}
void group_moments(void*, const GroupMomentsCall&) {
  refuse();
}
void group_norm(void*, const GroupNormCall&) {
  refuse();
}
void channel_norm(void*, const ChannelNormCall&) {
  refuse();
}
void add_pixels(void*, const AddPixelsCall&) {
  refuse();
}
void weave(void*, const WeaveCall&) {
  refuse();
}
void place(void*, const PlaceCall&) {
  refuse();
}
}  // namespace cuda
#endif

namespace {

void check_partition(const Placement& p) {
  ENSURE(static_cast<int64_t>(p.targets.size()) <= kMaxTargets);
  int64_t covered = 0;
  for (const Target& t : p.targets) {
    ENSURE(t.heads >= 0 && (t.heads == 0 || (t.first_head >= 0 && t.first_head + t.heads <= p.heads)));
    ENSURE(t.heads == 0 || p.q.data == nullptr || t.q != nullptr);
    ENSURE(t.heads == 0 || (p.k.data == nullptr && p.v.data == nullptr) || t.kv != nullptr);
    for (const Target& other : p.targets) {
      ENSURE(&other == &t || other.heads == 0 || t.heads == 0 || other.first_head >= t.first_head + t.heads ||
             t.first_head >= other.first_head + other.heads);
    }
    covered += t.heads;
  }
  ENSURE(covered == p.heads);
  ENSURE(static_cast<int64_t>(p.kv_copies.size()) <= kMaxTargets);
  for (const void* copy : p.kv_copies) ENSURE(copy != nullptr);
}

}  // namespace

void norm_modulate(LaunchTarget where, ElementType dtype, void* out, const void* x, const void* shift,
                   const void* scale, int64_t n, int64_t batch, int64_t channels, int64_t mod_stride,
                   double eps) {
  ENSURE(n >= 0 && batch >= 0 && channels >= 0);
  if (n == 0 || batch == 0 || channels == 0) return;
  const NormModulateCall call{dtype, out, x, shift, scale, n, batch, channels, mod_stride, eps};
  where.cuda ? cuda::norm_modulate(where.stream, call) : cpu::norm_modulate(call);
}

void gated_add(LaunchTarget where, ElementType dtype, void* x, const void* y, const void* bias,
               const void* gate, int64_t n, int64_t batch, int64_t channels, int64_t gate_stride) {
  ENSURE(n >= 0 && batch >= 0 && channels >= 0);
  if (n == 0 || batch == 0 || channels == 0) return;
  const GatedAddCall call{dtype, x, y, bias, gate, n, batch, channels, gate_stride};
  where.cuda ? cuda::gated_add(where.stream, call) : cpu::gated_add(call);
}

void gelu_tanh(LaunchTarget where, ElementType dtype, void* x, const void* bias, int64_t rows,
               int64_t channels, int64_t row_stride) {
  ENSURE(rows >= 0 && channels >= 0);
  if (rows == 0 || channels == 0) return;
  ENSURE(rows == 1 || row_stride >= channels);
  const GeluCall call{dtype, x, bias, rows, channels, row_stride};
  where.cuda ? cuda::gelu_tanh(where.stream, call) : cpu::gelu_tanh(call);
}

void gated_gelu(LaunchTarget where, ElementType dtype, GatedGelu form, void* out, const void* x, int64_t rows,
                int64_t channels) {
  ENSURE(rows >= 0 && channels >= 0);
  if (rows == 0 || channels == 0) return;
  const GatedGeluCall call{dtype, form, out, x, rows, channels};
  where.cuda ? cuda::gated_gelu(where.stream, call) : cpu::gated_gelu(call);
}

void softmax(LaunchTarget where, ElementType dtype, void* out, void* lse, const void* scores, double scale,
             int64_t rows, int64_t columns) {
  ENSURE(rows >= 0 && columns >= 0 && scale > 0);
  if (rows == 0 || columns == 0) return;
  const SoftmaxCall call{dtype, out, lse, scores, scale, rows, columns};
  where.cuda ? cuda::softmax(where.stream, call) : cpu::softmax(call);
}

void place(LaunchTarget where, ElementType dtype, const Placement& p) {
  ENSURE(p.n >= 0 && p.batch >= 0 && p.heads >= 0);
  ENSURE((p.cos == nullptr) == (p.sin == nullptr));
  if (p.n == 0 || p.batch == 0 || p.heads == 0) return;
  ENSURE(p.head_dim > 0 && p.head_dim % (p.is_e4m3 ? 16 : 2) == 0 && p.head_dim <= kMaxHeadDim);
  check_partition(p);
  const PlaceCall call{.dtype = dtype,
                       .q = p.q,
                       .k = p.k,
                       .v = p.v,
                       .rule_q = {p.norm_q, p.weight_q, p.bias_q, p.eps_q},
                       .rule_k = {p.norm_k, p.weight_k, p.bias_k, p.eps_k},
                       .cos = p.cos,
                       .sin = p.sin,
                       .n = p.n,
                       .batch = p.batch,
                       .heads = p.heads,
                       .head_dim = p.head_dim,
                       .targets = p.targets.data(),
                       .target_count = static_cast<int64_t>(p.targets.size()),
                       .kv_copies = p.kv_copies.data(),
                       .kv_copy_count = static_cast<int64_t>(p.kv_copies.size()),
                       .is_e4m3 = p.is_e4m3};
  if (where.cuda) return cuda::place(where.stream, call);
  p.is_e4m3 ? cpu::place_e4m3(call) : cpu::place(call);
}

}  // namespace atelier::kernels
