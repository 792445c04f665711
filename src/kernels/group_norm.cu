// Group norm over pictures with their channels last. Moments: each block sums a run of positions, a second
// kernel adds the runs up in a fixed order. Then one pass that normalises and activates.
#include "kernels/cuda.h"
#include "kernels/pixels.cuh"

namespace atelier::kernels::cuda {
namespace {

template <class T>
struct SumArgs {
  const T *x, *bias;
  double* sums;  // [B, runs, C / merged, 2]: of x + bias, of its square
  int64_t runs;
  int merged;  // channels that become one sum: a group's, where a block sees all channels, else 1
  PixelWalk walk;
};

// Numbers of one channel, less the first of them: nothing cancels where the mean is large.
template <class A>
struct Shifted {
  A first, sum, square;
  __device__ void add(A v) {
    const A d = v - first;
    sum += d;
    square += d * d;
  }
};

template <class T, int kWidth>
__device__ __forceinline__ int sum_run(const T* x, const PixelWalk& w, const Walker<kWidth>& at,
                                       Shifted<Arith<T>> (&sums)[kWidth]) {
  using A = Arith<T>;
  int count = 0;
  for (int64_t p = at.position; p < at.end; p += kAhead * w.lanes) {
    Pack<T, kWidth> held[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (p + i * w.lanes < at.end) held[i] = load_pack<kWidth>(x + (p + i * w.lanes) * w.channels);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (p + i * w.lanes >= at.end) continue;
      A v[kWidth];
      unpack(v, held[i]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (count == 0) sums[j] = {v[j], 0, 0};
        sums[j].add(v[j]);
      }
      ++count;
    }
  }
  return count;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kWalkers) sum_runs(const __grid_constant__ SumArgs<T> a) {
  using A = Arith<T>;
  __shared__ double shared[2 * kWidth][kWalkers];
  const PixelWalk& w = a.walk;
  const Walker<kWidth> at(w);
  for (int64_t b = blockIdx.z; b < w.batch; b += gridDim.z) {
    if (!at.is_idle) {
      A bias[kWidth] = {};
      if (a.bias != nullptr) unpack(bias, load_pack<kWidth>(a.bias + at.channel));
      Shifted<A> sums[kWidth] = {};
      const double count = sum_run(a.x + b * w.positions * w.channels + at.channel, w, at, sums);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const double first = static_cast<double>(sums[j].first) + static_cast<double>(bias[j]);
        const double sum = sums[j].sum, square = sums[j].square;
        shared[2 * j][threadIdx.x] = count * first + sum;
        shared[2 * j + 1][threadIdx.x] = first * (count * first + 2 * sum) + square;
      }
    }
    __syncthreads();
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * w.tile * kWidth;
    const int held = static_cast<int>(min(w.channels - begin, static_cast<int64_t>(w.tile) * kWidth));
    for (int i = threadIdx.x; i < 2 * held; i += kWalkers) {
      double* item = shared[i % (2 * kWidth)] + i / (2 * kWidth);
      double total = item[0];
      for (int lane = 1; lane < w.lanes; ++lane) total += item[lane * w.tile];
      item[0] = total;  // nobody else reads these
    }
    __syncthreads();
    double* to = a.sums + ((b * a.runs + blockIdx.y) * w.channels + begin) / a.merged * 2;
    for (int i = threadIdx.x; i < 2 * held / a.merged; i += kWalkers) {
      double total = 0;
      for (int c = i / 2 * a.merged; c < (i / 2 + 1) * a.merged; ++c)
        total += shared[2 * (c % kWidth) + i % 2][c / kWidth];
      to[i] = total;
    }
    __syncthreads();
  }
}

struct TotalArgs {
  const double* sums;
  double* moments;
  int64_t batch, groups;
  double count;     // of the numbers in a group
  int runs, parts;  // sums of one group in each run
};

// A block per group and picture.
__global__ void __launch_bounds__(kWalkers) add_runs(const __grid_constant__ TotalArgs a) {
  __shared__ double shared[2][kWalkers / 32];
  const int64_t g = blockIdx.x, row = a.groups * a.parts;
  for (int64_t b = blockIdx.y; b < a.batch; b += gridDim.y) {
    const double2* from = reinterpret_cast<const double2*>(a.sums) + b * a.runs * row + g * a.parts;
    double sum = 0, square = 0;
    for (int i = threadIdx.x; i < a.runs * a.parts; i += kWalkers) {
      const double2 pair = from[i / a.parts * row + i % a.parts];
      sum += pair.x;
      square += pair.y;
    }
    sum = group_sum(sum);
    square = group_sum(square);
    if (threadIdx.x % 32 == 0) {
      shared[0][threadIdx.x / 32] = sum;
      shared[1][threadIdx.x / 32] = square;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
      double total = 0;
      for (int warp = 0; warp < kWalkers / 32; ++warp) total += shared[threadIdx.x][warp];
      a.moments[(static_cast<int64_t>(threadIdx.x) + 1) * a.batch * a.groups + b * a.groups + g] = total;
      a.moments[b * a.groups + g] = a.count;
    }
    __syncthreads();
  }
}

template <class T>
void sum(void* stream, const GroupMomentsCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const Pixels& p = c.pixels;
  const bool vector = p.channels % kPack == 0 && aligned16(p.x) && aligned16(p.bias);
  const auto plan = plan_walk(p.batch, p.positions, p.channels, vector ? kPack : 1, c.runs);
  const int64_t runs = plan.grid.y, width = p.channels / c.groups, merged = plan.grid.x == 1 ? width : 1;
  const SumArgs<T> args{static_cast<const T*>(p.x),
                        static_cast<const T*>(p.bias),
                        c.scratch,
                        runs,
                        static_cast<int>(merged),
                        plan.walk};
  launch(vector ? sum_runs<T, kPack> : sum_runs<T, 1>, plan.grid, kWalkers, stream, args);
  const dim3 grid(static_cast<unsigned>(c.groups), static_cast<unsigned>(std::min<int64_t>(p.batch, 65535)));
  launch(add_runs, grid, kWalkers, stream,
         TotalArgs{c.scratch, c.moments, p.batch, c.groups, static_cast<double>(p.positions * width),
                   static_cast<int>(runs), static_cast<int>(width / merged)});
}

template <class T>
struct NormArgs {
  T* out;
  const T *x, *bias, *weight, *shift;
  const double* moments;  // [3, B, G]
  int64_t groups;
  double eps;
  PixelWalk walk;
};

// (x - centre) * slope + shift, for the channels of one thread.
template <class A, int kWidth>
struct Affine {
  A centre[kWidth], slope[kWidth], shift[kWidth];
};

template <class T, int kWidth>
__device__ __forceinline__ Affine<Arith<T>, kWidth> affine(const NormArgs<T>& a, int64_t b, int64_t channel) {
  using A = Arith<T>;
  Affine<A, kWidth> f;
  A bias[kWidth] = {}, weight[kWidth];
  if (a.bias != nullptr) unpack(bias, load_pack<kWidth>(a.bias + channel));
  unpack(weight, load_pack<kWidth>(a.weight + channel));
  unpack(f.shift, load_pack<kWidth>(a.shift + channel));
  const int64_t width = a.walk.channels / a.groups, plane = a.walk.batch * a.groups;
  int64_t known = -1;
  double mean = 0, deviation = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const int64_t g = (channel + j) / width;
    if (g != known) {
      const double* m = a.moments + b * a.groups + g;
      mean = m[plane] / m[0];
      const double variance = m[2 * plane] / m[0] - mean * mean;
      deviation = rsqrt((variance > 0 ? variance : 0) + a.eps);
      known = g;
    }
    f.centre[j] = static_cast<A>(mean - static_cast<double>(bias[j]));
    f.slope[j] = static_cast<A>(deviation) * weight[j];
  }
  return f;
}

template <Nonlinearity kNonlinearity, class T, int kWidth>
__global__ void __launch_bounds__(kWalkers) normalise(const __grid_constant__ NormArgs<T> a) {
  using A = Arith<T>;
  const PixelWalk& w = a.walk;
  const Walker<kWidth> at(w);
  if (at.is_idle) return;
  for (int64_t b = blockIdx.z; b < w.batch; b += gridDim.z) {
    const Affine<A, kWidth> f = affine<T, kWidth>(a, b, at.channel);
    const int64_t plane = b * w.positions * w.channels + at.channel;
    for (int64_t p = at.position; p < at.end; p += kAhead * w.lanes) {
      Pack<T, kWidth> held[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (p + i * w.lanes < at.end)
          held[i] = load_pack<kWidth>(a.x + plane + (p + i * w.lanes) * w.channels);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (p + i * w.lanes >= at.end) continue;
        A v[kWidth];
        unpack(v, held[i]);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          v[j] = (v[j] - f.centre[j]) * f.slope[j] + f.shift[j];
          if constexpr (kNonlinearity == Nonlinearity::kSilu) v[j] = silu(v[j]);
        }
        store_pack(a.out + plane + (p + i * w.lanes) * w.channels, pack_of<T>(v));
      }
    }
  }
}

template <class T, int kWidth>
void normalise_by(void* stream, const GroupNormCall& c) {
  const Pixels& p = c.pixels;
  const auto plan = plan_walk(p.batch, p.positions, p.channels, kWidth,
                              short_runs(p.batch, p.positions, p.channels, kWidth));
  const NormArgs<T> args{static_cast<T*>(c.out),
                         static_cast<const T*>(p.x),
                         static_cast<const T*>(p.bias),
                         static_cast<const T*>(c.weight),
                         static_cast<const T*>(c.shift),
                         c.moments,
                         c.groups,
                         c.eps,
                         plan.walk};
  launch(c.nonlinearity == Nonlinearity::kSilu ? normalise<Nonlinearity::kSilu, T, kWidth>
                                               : normalise<Nonlinearity::kNone, T, kWidth>,
         plan.grid, kWalkers, stream, args);
}

template <class T>
void norm(void* stream, const GroupNormCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const Pixels& p = c.pixels;
  const bool vector = p.channels % kPack == 0 && aligned16(c.out) && aligned16(p.x) && aligned16(p.bias) &&
                      aligned16(c.weight) && aligned16(c.shift);
  vector ? normalise_by<T, kPack>(stream, c) : normalise_by<T, 1>(stream, c);
}

}  // namespace

void group_moments(void* stream, const GroupMomentsCall& call) {
  with_type(call.dtype, [&](auto type) { sum<decltype(type)>(stream, call); });
}

void group_norm(void* stream, const GroupNormCall& call) {
  with_type(call.dtype, [&](auto type) { norm<decltype(type)>(stream, call); });
}

}  // namespace atelier::kernels::cuda
