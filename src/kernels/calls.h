// A kernel's arguments in one struct each, as the dispatcher hands them to the CPU and CUDA implementations.
// C++17. The meaning of every field is in kernels.h; sizes are positive here, empty calls end in the
// dispatcher.
#pragma once
#include "kernels/types.h"

namespace atelier::kernels {

struct NormModulateCall {
  ElementType dtype;
  void* out;
  const void *x, *shift, *scale;
  int64_t n, batch, channels, mod_stride;
  double eps;
};

struct NormModulateE4m3Call {
  ElementType dtype;
  E4m3Rows out;
  const void *x, *shift, *scale;
  int64_t n, batch, channels, mod_stride;
  double eps;
};

struct QuantiseE4m3Call {
  ElementType dtype;
  E4m3Rows out;
  RowSegment segments[kMaxSegments];
  int64_t count, rows, channels;  // segments that are there; channels of all
};

struct GatedAddCall {
  ElementType dtype;
  void* x;
  const void *y, *bias, *gate;
  int64_t n, batch, channels, gate_stride;
};

struct GeluCall {
  ElementType dtype;
  void* x;
  const void* bias;
  int64_t rows, channels, row_stride;
};

struct GatedGeluCall {
  ElementType dtype;
  GatedGelu form;
  void* out;
  const void* x;
  int64_t rows, channels;
};

struct SoftmaxCall {
  ElementType dtype;
  void *out, *lse;
  const void* scores;
  double scale;
  int64_t rows, columns;
};

struct GroupMomentsCall {
  ElementType dtype;
  Pixels pixels;
  int64_t groups;
  double *moments, *scratch;
  int64_t runs;  // of positions, each with partial sums of its own: scratch holds [B, runs, C, 2]
};

struct GroupNormCall {
  ElementType dtype;
  void* out;
  Pixels pixels;
  const double* moments;
  const void *weight, *shift;
  int64_t groups;
  double eps;
  Nonlinearity nonlinearity;
};

struct ChannelNormCall {
  ElementType dtype;
  void* out;
  Pixels pixels;
  const void* weight;
  double scale, least;
  Nonlinearity nonlinearity;
};

struct AddPixelsCall {
  ElementType dtype;
  void* x;
  Pixels pixels;
};

struct WeaveCall {
  ElementType dtype;
  void* out;
  const void *x, *bias;
  int64_t batch, rows, cols, channels;
};

// What happens to the heads of q or k before they are placed.
struct HeadRule {
  Norm norm = Norm::kNone;
  const void *weight = nullptr, *bias = nullptr;  // [d] or null
  double eps = 0;
};

struct PlaceCall {
  ElementType dtype;
  Source q, k, v;
  HeadRule rule_q, rule_k;
  const void *cos, *sin;  // [n, d/2] float, double for kF64; both null: no rope
  int64_t n, batch, heads, head_dim;
  const Target* targets;
  int64_t target_count;
  void* const* kv_copies;
  int64_t kv_copy_count;
  bool is_e4m3;
};

}  // namespace atelier::kernels
