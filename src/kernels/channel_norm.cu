// Root-mean-square norm over the channels of pictures with their channels last. A few neighbouring threads
// share a position, whose channels they hold in registers between the sum and the result; positions of a
// warp are neighbours.
#include "kernels/cuda.h"
#include "kernels/pixels.cuh"

namespace atelier::kernels::cuda {
namespace {

constexpr int kMostHeld = 4;  // packs of a thread

template <class T>
struct ChannelArgs {
  T* out;
  const T *x, *bias, *weight;
  int64_t positions, channels;
  Arith<T> scale, least;
  int lanes;  // threads of a position, a power of two, at most a warp
};

template <class T, int kWidth>
__device__ __forceinline__ void load_biased(Arith<T> (&v)[kWidth], const ChannelArgs<T>& a, const T* x,
                                            int64_t channel) {
  unpack(v, load_pack<kWidth>(x + channel));
  if (a.bias == nullptr) return;
  Arith<T> bias[kWidth];
  unpack(bias, load_pack<kWidth>(a.bias + channel));
#pragma unroll
  for (int j = 0; j < kWidth; ++j) v[j] += bias[j];
}

template <Nonlinearity kNonlinearity, class T, int kWidth>
__device__ __forceinline__ void store_scaled(Arith<T> (&v)[kWidth], const ChannelArgs<T>& a, T* out,
                                             int64_t channel, Arith<T> slope) {
  Arith<T> weight[kWidth];
  unpack(weight, load_pack<kWidth>(a.weight + channel));
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    v[j] = v[j] * slope * weight[j];
    if constexpr (kNonlinearity == Nonlinearity::kSilu) v[j] = silu(v[j]);
  }
  store_pack(out + channel, pack_of<T>(v));
}

template <class A, int kWidth>
__device__ __forceinline__ A squares(const A (&v)[kWidth]) {
  A sum = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) sum += v[j] * v[j];
  return sum;
}

template <class T>
__device__ __forceinline__ Arith<T> slope_of(const ChannelArgs<T>& a, Arith<T> sum) {
  return a.scale / max(sqrt(group_sum(sum, a.lanes)), a.least);
}

// All channels in registers.
template <Nonlinearity kNonlinearity, class T, int kWidth>
__global__ void __launch_bounds__(kWalkers) norm_held(const __grid_constant__ ChannelArgs<T> a) {
  using A = Arith<T>;
  const int lane = static_cast<int>(threadIdx.x) % a.lanes, step = a.lanes * kWidth;
  const int64_t side = kWalkers / a.lanes;
  // The bound is the same for all threads of a block: every one takes part in the sums.
  for (int64_t first = blockIdx.x * side; first < a.positions; first += gridDim.x * side) {
    const int64_t position = first + threadIdx.x / a.lanes;
    const bool is_idle = position >= a.positions;
    const T* x = a.x + position * a.channels;
    A v[kMostHeld][kWidth], sum = 0;
#pragma unroll
    for (int i = 0; i < kMostHeld; ++i) {
      const int64_t channel = lane * kWidth + i * step;
      if (is_idle || channel >= a.channels) continue;
      load_biased<T, kWidth>(v[i], a, x, channel);
      sum += squares(v[i]);
    }
    const A slope = slope_of(a, sum);
#pragma unroll
    for (int i = 0; i < kMostHeld; ++i) {
      const int64_t channel = lane * kWidth + i * step;
      if (is_idle || channel >= a.channels) continue;
      store_scaled<kNonlinearity, T, kWidth>(v[i], a, a.out + position * a.channels, channel, slope);
    }
  }
}

// Any number of channels: read twice.
template <Nonlinearity kNonlinearity, class T, int kWidth>
__global__ void __launch_bounds__(kWalkers) norm_reread(const __grid_constant__ ChannelArgs<T> a) {
  using A = Arith<T>;
  const int lane = static_cast<int>(threadIdx.x) % a.lanes;
  const int64_t side = kWalkers / a.lanes;
  for (int64_t first = blockIdx.x * side; first < a.positions; first += gridDim.x * side) {
    const int64_t position = first + threadIdx.x / a.lanes;
    const int64_t end = position < a.positions ? a.channels : 0;
    const T* x = a.x + position * a.channels;
    A v[kWidth], sum = 0;
    for (int64_t channel = lane * kWidth; channel < end; channel += a.lanes * kWidth) {
      load_biased<T, kWidth>(v, a, x, channel);
      sum += squares(v);
    }
    const A slope = slope_of(a, sum);
    for (int64_t channel = lane * kWidth; channel < end; channel += a.lanes * kWidth) {
      load_biased<T, kWidth>(v, a, x, channel);
      store_scaled<kNonlinearity, T, kWidth>(v, a, a.out + position * a.channels, channel, slope);
    }
  }
}

template <class T, int kWidth>
void norm_by(void* stream, const ChannelNormCall& c) {
  const Pixels& p = c.pixels;
  const int64_t packs = p.channels / kWidth, positions = p.batch * p.positions;
  int lanes = 1;
  while (lanes < 32 && lanes * kMostHeld < packs) lanes *= 2;
  const ChannelArgs<T> args{static_cast<T*>(c.out),
                            static_cast<const T*>(p.x),
                            static_cast<const T*>(p.bias),
                            static_cast<const T*>(c.weight),
                            positions,
                            p.channels,
                            static_cast<Arith<T>>(c.scale),
                            static_cast<Arith<T>>(c.least),
                            lanes};
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(ceil_div(positions, kWalkers / lanes), 1 << 20)));
  const bool is_silu = c.nonlinearity == Nonlinearity::kSilu, fits = lanes * kMostHeld >= packs;
  auto* const plain =
      fits ? norm_held<Nonlinearity::kNone, T, kWidth> : norm_reread<Nonlinearity::kNone, T, kWidth>;
  auto* const silu =
      fits ? norm_held<Nonlinearity::kSilu, T, kWidth> : norm_reread<Nonlinearity::kSilu, T, kWidth>;
  launch(is_silu ? silu : plain, grid, kWalkers, stream, args);
}

template <class T>
void norm(void* stream, const ChannelNormCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const Pixels& p = c.pixels;
  const bool vector = p.channels % kPack == 0 && aligned16(c.out) && aligned16(p.x) && aligned16(p.bias) &&
                      aligned16(c.weight);
  vector ? norm_by<T, kPack>(stream, c) : norm_by<T, 1>(stream, c);
}

}  // namespace

void channel_norm(void* stream, const ChannelNormCall& call) {
  with_type(call.dtype, [&](auto type) { norm<decltype(type)>(stream, call); });
}

}  // namespace atelier::kernels::cuda
