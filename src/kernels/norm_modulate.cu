// norm_modulate on CUDA: a block per row, which stays in registers between the two statistics and the output.
#include "kernels/cuda.h"
#include "kernels/device.cuh"

namespace atelier::kernels::cuda {
namespace {

constexpr int kMaxThreads = 256;

template <class T>
struct Args {
  T* out;
  const T *x, *shift, *scale;
  int64_t rows, batch, channels, mod_stride;
  Arith<T> eps;
};

// Each thread holds kPacks packs of 16 bytes; the row has at most kPacks * blockDim.x.
template <class T, int kPacks>
__global__ void __launch_bounds__(kMaxThreads) rows_in_registers(const __grid_constant__ Args<T> a) {
  using A = Arith<T>;
  constexpr int kWidth = 16 / sizeof(T);
  __shared__ A sums[32], squares[32];
  const int packs = static_cast<int>(a.channels / kWidth);
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T* x = a.x + row * a.channels;
    const int64_t mod = a.batch == 1 ? 0 : row % a.batch * a.mod_stride;
    Pack<T, kWidth> held[kPacks], shift[kPacks], scale[kPacks];
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int at = threadIdx.x + i * blockDim.x;
      if (at < packs) held[i] = load_pack<kWidth>(x + at * kWidth);
    }
    // Asked for before the sums, which wait for x.
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int at = threadIdx.x + i * blockDim.x;
      if (at < packs) {
        shift[i] = load_pack<kWidth>(a.shift + mod + at * kWidth);
        scale[i] = load_pack<kWidth>(a.scale + mod + at * kWidth);
      }
    }
    A sum = 0;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (static_cast<int>(threadIdx.x + i * blockDim.x) >= packs) continue;
      A v[kWidth];
      unpack(v, held[i]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum += v[j];
    }
    const A mean = block_sum(sum, sums) / static_cast<A>(a.channels);
    A square = 0;
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (static_cast<int>(threadIdx.x + i * blockDim.x) >= packs) continue;
      A v[kWidth];
      unpack(v, held[i]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) square += (v[j] - mean) * (v[j] - mean);
    }
    const A inverse = inverse_root(block_sum(square, squares) / static_cast<A>(a.channels) + a.eps);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const int at = threadIdx.x + i * blockDim.x;
      if (at >= packs) continue;
      A v[kWidth], by[kWidth], plus[kWidth];
      unpack(v, held[i]);
      unpack(by, scale[i]);
      unpack(plus, shift[i]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) v[j] = (v[j] - mean) * inverse * (A(1) + by[j]) + plus[j];
      store_pack(a.out + row * a.channels + at * kWidth, pack_of<T>(v));
    }
  }
}

// Any width and alignment: one element at a time, three passes over the row.
template <class T>
__global__ void __launch_bounds__(kMaxThreads) rows_by_element(const __grid_constant__ Args<T> a) {
  using A = Arith<T>;
  __shared__ A sums[32], squares[32];
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T* x = a.x + row * a.channels;
    const int64_t mod = row % a.batch * a.mod_stride;
    A sum = 0;
    for (int64_t c = threadIdx.x; c < a.channels; c += blockDim.x) sum += load(x[c]);
    const A mean = block_sum(sum, sums) / static_cast<A>(a.channels);
    A square = 0;
    for (int64_t c = threadIdx.x; c < a.channels; c += blockDim.x) {
      const A d = load(x[c]) - mean;
      square += d * d;
    }
    const A inverse = inverse_root(block_sum(square, squares) / static_cast<A>(a.channels) + a.eps);
    for (int64_t c = threadIdx.x; c < a.channels; c += blockDim.x) {
      a.out[row * a.channels + c] = round_to<T>(
          (load(x[c]) - mean) * inverse * (A(1) + load(a.scale[mod + c])) + load(a.shift[mod + c]));
    }
  }
}

template <class T>
void run(void* stream, const NormModulateCall& c) {
  const Args<T> args{static_cast<T*>(c.out),
                     static_cast<const T*>(c.x),
                     static_cast<const T*>(c.shift),
                     static_cast<const T*>(c.scale),
                     c.n * c.batch,
                     c.batch,
                     c.channels,
                     c.mod_stride,
                     static_cast<Arith<T>>(c.eps)};
  constexpr int64_t kWidth = 16 / sizeof(T);
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(args.rows, 1 << 30)));
  const int64_t packs = c.channels / kWidth;
  const bool vector = c.channels % kWidth == 0 && (c.batch == 1 || c.mod_stride % kWidth == 0) &&
                      aligned16(c.out) && aligned16(c.x) && aligned16(c.shift) && aligned16(c.scale);
  // Up to four packs a thread and blocks of about 128 threads, then wider blocks, then more packs.
  const int64_t held = packs <= 512 ? ceil_div(packs, 128) : packs <= 4 * kMaxThreads ? 4 : 8;
  if (!vector || packs > held * kMaxThreads)
    return launch(rows_by_element<T>, grid, kMaxThreads, stream, args);
  const int threads = static_cast<int>(ceil_div(ceil_div(packs, held), 32) * 32);
  switch (held) {
    case 1:
      return launch(rows_in_registers<T, 1>, grid, threads, stream, args);
    case 2:
      return launch(rows_in_registers<T, 2>, grid, threads, stream, args);
    case 3:
      return launch(rows_in_registers<T, 3>, grid, threads, stream, args);
    case 4:
      return launch(rows_in_registers<T, 4>, grid, threads, stream, args);
    default:
      return launch(rows_in_registers<T, 8>, grid, threads, stream, args);
  }
}

}  // namespace

void norm_modulate(void* stream, const NormModulateCall& call) {
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

}  // namespace atelier::kernels::cuda
