// gated_add and gelu_tanh on CUDA: a thread owns one pack of channels, keeps its gate and bias in registers
// and walks down the rows, four at a time so that their loads overlap.
#include "kernels/cuda.h"
#include "kernels/device.cuh"

namespace atelier::kernels::cuda {
namespace {

constexpr int kColumns = 32, kLines = 8, kRows = 4;  // a block covers 32 packs x 8 lines of 4 rows

// The same for both kernels: x[r * row_stride + z * plane_stride + c].
template <class T>
struct Args {
  T* x;
  const T *y, *bias, *gate;  // y, gate: gated_add only; y lies like x
  int64_t rows, planes, channels, row_stride, plane_stride, gate_stride;
};

enum class Work { kGatedAdd, kGelu };

template <Work kWork, class T, int kWidth>
__device__ __forceinline__ void column(const Args<T>& a, int64_t c, int64_t z) {
  using A = Arith<T>;
  constexpr bool kGated = kWork == Work::kGatedAdd;
  A bias[kWidth] = {}, gate[kWidth] = {};
  if (a.bias != nullptr) unpack(bias, load_pack<kWidth>(a.bias + c));
  if constexpr (kGated) unpack(gate, load_pack<kWidth>(a.gate + z * a.gate_stride + c));
  const int64_t step = static_cast<int64_t>(gridDim.y) * kLines * kRows;
  for (int64_t r0 = static_cast<int64_t>(blockIdx.y) * kLines * kRows + threadIdx.x / kColumns; r0 < a.rows;
       r0 += step) {
    Pack<T, kWidth> x[kRows], y[kRows];
    const int64_t first = r0 * a.row_stride + z * a.plane_stride + c;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (r0 + i * kLines >= a.rows) continue;
      const int64_t at = first + i * kLines * a.row_stride;
      x[i] = load_pack<kWidth>(a.x + at);
      if constexpr (kGated) y[i] = load_pack<kWidth>(a.y + at);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (r0 + i * kLines >= a.rows) continue;
      A v[kWidth], w[kWidth];
      unpack(v, x[i]);
      if constexpr (kGated) unpack(w, y[i]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if constexpr (kGated) {
          v[j] += gate[j] * (w[j] + bias[j]);
        } else {
          v[j] = gelu(v[j] + bias[j]);
        }
      }
      store_pack(a.x + first + i * kLines * a.row_stride, pack_of<T>(v));
    }
  }
}

template <Work kWork, class T, int kWidth>
__global__ void __launch_bounds__(kColumns* kLines) columns(const __grid_constant__ Args<T> a) {
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * kColumns + threadIdx.x % kColumns) * kWidth;
  if (c >= a.channels) return;
  for (int64_t z = blockIdx.z; z < a.planes; z += gridDim.z) column<kWork, T, kWidth>(a, c, z);
}

template <Work kWork, class T>
void run(void* stream, const Args<T>& args) {
  constexpr int kWidth = 16 / sizeof(T);
  const bool vector = args.channels % kWidth == 0 && (args.rows == 1 || args.row_stride % kWidth == 0) &&
                      (args.planes == 1 || args.gate_stride % kWidth == 0) && aligned16(args.x) &&
                      aligned16(args.y) && aligned16(args.bias) && aligned16(args.gate);
  const int width = vector ? kWidth : 1;
  const dim3 grid(static_cast<unsigned>(ceil_div(args.channels, int64_t{kColumns} * width)),
                  static_cast<unsigned>(std::min<int64_t>(ceil_div(args.rows, kLines * kRows), 65535)),
                  static_cast<unsigned>(std::min<int64_t>(args.planes, 65535)));
  launch(vector ? columns<kWork, T, kWidth> : columns<kWork, T, 1>, grid, kColumns * kLines, stream, args);
}

template <class T>
void run(void* stream, const GatedAddCall& c) {
  run<Work::kGatedAdd>(stream, Args<T>{static_cast<T*>(c.x), static_cast<const T*>(c.y),
                                       static_cast<const T*>(c.bias), static_cast<const T*>(c.gate), c.n,
                                       c.batch, c.channels, c.batch * c.channels, c.channels, c.gate_stride});
}

template <class T>
void run(void* stream, const GeluCall& c) {
  run<Work::kGelu>(stream, Args<T>{static_cast<T*>(c.x), nullptr, static_cast<const T*>(c.bias), nullptr,
                                   c.rows, 1, c.channels, c.row_stride, 0, 0});
}

template <class Call>
void by_type(void* stream, const Call& call) {
  switch (call.dtype) {
    case ElementType::kF32:
      return run<float>(stream, call);
    case ElementType::kF64:
      return run<double>(stream, call);
    case ElementType::kBF16:
      return run<__nv_bfloat16>(stream, call);
    case ElementType::kF16:
      return run<__half>(stream, call);
  }
}

}  // namespace

void gated_add(void* stream, const GatedAddCall& call) {
  by_type(stream, call);
}

void gelu_tanh(void* stream, const GeluCall& call) {
  by_type(stream, call);
}

}  // namespace atelier::kernels::cuda
