// softmax on CUDA: a block per row reads it twice, the second time from the L2 cache; and gated_gelu.
#include <cmath>

#include "kernels/cuda.h"
#include "kernels/device.cuh"

namespace atelier::kernels::cuda {
namespace {

constexpr int kThreads = 512;

template <class T>
struct Args {
  T* out;
  Arith<T>* lse;
  const Arith<T>* scores;
  Arith<T> scale;  // times log2(e)
  int64_t rows, columns;
};

// The greatest of some scores, and the sum of 2^(scale * (score - greatest)).
template <class A>
struct Partial {
  A most, sum;
  __device__ __forceinline__ void merge(const Partial& other, A scale) {
    const A top = most > other.most ? most : other.most;
    sum = sum * weight(top, scale) + other.sum * other.weight(top, scale);
    most = top;
  }
  // Nothing has been seen: minus infinity less itself would be no number.
  __device__ __forceinline__ A weight(A top, A scale) const {
    return sum == A(0) ? A(0) : power_of_two((most - top) * scale);
  }
};

template <class A>
__device__ __forceinline__ Partial<A> over_block(Partial<A> mine, A scale, Partial<A>* shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    mine.merge(
        {__shfl_xor_sync(0xffffffffu, mine.most, offset), __shfl_xor_sync(0xffffffffu, mine.sum, offset)},
        scale);
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
  __syncthreads();
  Partial<A> all = shared[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) all.merge(shared[warp], scale);
  __syncthreads();
  return all;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) rows(const __grid_constant__ Args<T> a) {
  using A = Arith<T>;
  __shared__ Partial<A> shared[kThreads / 32];
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const A* scores = a.scores + row * a.columns;
    Partial<A> mine{static_cast<A>(-INFINITY), 0};
    for (int64_t c = threadIdx.x * kWidth; c < a.columns; c += kThreads * kWidth) {
      A v[kWidth];
      unpack(v, load_pack<kWidth>(scores + c));
      A most = v[0];
#pragma unroll
      for (int j = 1; j < kWidth; ++j) most = most > v[j] ? most : v[j];
      Partial<A> here{most, 0};
#pragma unroll
      for (int j = 0; j < kWidth; ++j) here.sum += power_of_two((v[j] - most) * a.scale);
      mine.merge(here, a.scale);
    }
    const Partial<A> all = over_block(mine, a.scale, shared);
    const A share = A(1) / all.sum;
    for (int64_t c = threadIdx.x * kWidth; c < a.columns; c += kThreads * kWidth) {
      A v[kWidth];
      unpack(v, load_pack<kWidth>(scores + c));
#pragma unroll
      for (int j = 0; j < kWidth; ++j) v[j] = power_of_two((v[j] - all.most) * a.scale) * share;
      store_pack(a.out + row * a.columns + c, pack_of<T>(v));
    }
    if (a.lse != nullptr && threadIdx.x == 0) {
      a.lse[row] = all.most * a.scale * A(0.6931471805599453) + log(all.sum);
    }
  }
}

template <class T>
void run(void* stream, const SoftmaxCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const Args<T> args{static_cast<T*>(c.out),
                     static_cast<Arith<T>*>(c.lse),
                     static_cast<const Arith<T>*>(c.scores),
                     static_cast<Arith<T>>(c.scale * 1.4426950408889634),
                     c.rows,
                     c.columns};
  const bool vector = c.columns % kPack == 0 && aligned16(c.out) && aligned16(c.scores);
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(c.rows, 1 << 30)));
  launch(vector ? rows<T, kPack> : rows<T, 1>, grid, kThreads, stream, args);
}

template <class T>
struct GateArgs {
  T* out;
  const T* x;
  int64_t rows, channels;
};

constexpr int kGateThreads = 256;

// Blocks are (part of a row, row).
__device__ __forceinline__ float gelu_erf(float v) {
  return 0.5f * v * (1 + erff(v * 0.70710678118654752f));
}
__device__ __forceinline__ double gelu_erf(double v) {
  return 0.5 * v * (1 + erf(v * 0.70710678118654752));
}

template <GatedGelu kForm, class T, int kWidth>
__global__ void __launch_bounds__(kGateThreads) gate(const __grid_constant__ GateArgs<T> a) {
  using A = Arith<T>;
  const int64_t c = (static_cast<int64_t>(blockIdx.x) * kGateThreads + threadIdx.x) * kWidth;
  if (c >= a.channels) return;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    A v[kWidth], by[kWidth];
    unpack(v, load_pack<kWidth>(a.x + row * 2 * a.channels + c));
    unpack(by, load_pack<kWidth>(a.x + (row * 2 + 1) * a.channels + c));
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      v[j] = kForm == GatedGelu::kTanhFirst ? gelu(v[j]) * by[j] : v[j] * gelu_erf(by[j]);
    store_pack(a.out + row * a.channels + c, pack_of<T>(v));
  }
}

template <GatedGelu kForm, class T>
void run_gate(void* stream, const GatedGeluCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const bool vector = c.channels % kPack == 0 && aligned16(c.out) && aligned16(c.x);
  const dim3 grid(static_cast<unsigned>(ceil_div(c.channels, int64_t{kGateThreads} * (vector ? kPack : 1))),
                  static_cast<unsigned>(std::min<int64_t>(c.rows, 65535)));
  launch(vector ? gate<kForm, T, kPack> : gate<kForm, T, 1>, grid, kGateThreads, stream,
         GateArgs<T>{static_cast<T*>(c.out), static_cast<const T*>(c.x), c.rows, c.channels});
}

template <class T>
void run(void* stream, const GatedGeluCall& c) {
  const auto gate = c.form == GatedGelu::kTanhFirst ? run_gate<GatedGelu::kTanhFirst, T>
                                                    : run_gate<GatedGelu::kErfSecond, T>;
  gate(stream, c);
}

}  // namespace

void softmax(void* stream, const SoftmaxCall& call) {
  with_type(call.dtype, [&](auto type) { run<decltype(type)>(stream, call); });
}

void gated_gelu(void* stream, const GatedGeluCall& call) {
  with_type(call.dtype, [&](auto type) { run<decltype(type)>(stream, call); });
}

}  // namespace atelier::kernels::cuda
