// The plain types of the kernels' interface; C++17, because CUDA sources include them too.
#pragma once
#include <cstdint>

namespace atelier::kernels {

enum class ElementType : uint8_t { kF32, kF64, kBF16, kF16 };

// Where a kernel runs: on the calling thread, or enqueued on a stream of the current CUDA device.
struct LaunchTarget {
  bool cuda = false;
  void* stream = nullptr;  // cudaStream_t
};

enum class Norm : uint8_t { kNone, kRms, kLayer };
enum class Nonlinearity : uint8_t { kNone, kSilu };
// gelu_tanh(first half) * second half (T5 1.1), or first half * gelu(second half) with the exact gelu (GEGLU
// of diffusers; Shazeer, arXiv 2002.05202).
enum class GatedGelu : uint8_t { kTanhFirst, kErfSecond };

// Pictures with their channels last, [B, positions, C] contiguous, and a bias that their numbers still lack.
struct Pixels {
  const void* x = nullptr;
  const void* bias = nullptr;  // [C] or null
  int64_t batch = 0, positions = 0, channels = 0;
};

// One of q, k, v as it leaves the projection: [n, B, heads, d], strides in elements, last dimension
// contiguous.
struct Source {
  const void* data = nullptr;
  int64_t token_stride = 0, batch_stride = 0, head_stride = 0;
};

// Where one range of heads goes; both buffers point at this stream's first token and are contiguous.
struct Target {
  void* q = nullptr;   // [n, B, heads, d]
  void* kv = nullptr;  // [n, B, 2, heads, d]
  int64_t first_head = 0, heads = 0;
};

// Eight-bit rows (e4m3) with one scale each: number = byte's value * scale.
struct E4m3Rows {
  void* rows = nullptr;     // [rows, C] contiguous, bytes
  float* scales = nullptr;  // [rows]
};

// Columns of a row that is put together: x [rows, channels], row_stride elements between rows.
struct RowSegment {
  const void* x = nullptr;
  int64_t channels = 0, row_stride = 0;
  bool gelu = false;  // the tanh form is still to be applied
};

inline constexpr int64_t kMaxSegments = 4;
inline constexpr int64_t kMaxTargets = 64;
inline constexpr int64_t kMaxHeadDim = 256;

}  // namespace atelier::kernels
