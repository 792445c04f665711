// What remains between the convolutions of pictures with their channels last: sums, and the weaving of the
// four parts of a doubled picture.
#include "kernels/cuda.h"
#include "kernels/pixels.cuh"

namespace atelier::kernels::cuda {
namespace {

template <class T>
struct AddArgs {
  T* x;
  const T *y, *bias;
  PixelWalk walk;
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kWalkers) add(const __grid_constant__ AddArgs<T> a) {
  using A = Arith<T>;
  const PixelWalk& w = a.walk;
  const Walker<kWidth> at(w);
  if (at.is_idle) return;
  A bias[kWidth] = {};
  if (a.bias != nullptr) unpack(bias, load_pack<kWidth>(a.bias + at.channel));
  for (int64_t b = blockIdx.z; b < w.batch; b += gridDim.z) {
    const int64_t plane = b * w.positions * w.channels + at.channel;
    for (int64_t p = at.position; p < at.end; p += kAhead * w.lanes) {
      Pack<T, kWidth> x[kAhead], y[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (p + i * w.lanes >= at.end) continue;
        x[i] = load_pack<kWidth>(a.x + plane + (p + i * w.lanes) * w.channels);
        y[i] = load_pack<kWidth>(a.y + plane + (p + i * w.lanes) * w.channels);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (p + i * w.lanes >= at.end) continue;
        A v[kWidth], u[kWidth];
        unpack(v, x[i]);
        unpack(u, y[i]);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) v[j] += u[j] + bias[j];
        store_pack(a.x + plane + (p + i * w.lanes) * w.channels, pack_of<T>(v));
      }
    }
  }
}

template <class T, int kWidth>
void add_by(void* stream, const AddPixelsCall& c) {
  const Pixels& p = c.pixels;
  const auto plan = plan_walk(p.batch, p.positions, p.channels, kWidth,
                              short_runs(p.batch, p.positions, p.channels, kWidth));
  launch(
      add<T, kWidth>, plan.grid, kWalkers, stream,
      AddArgs<T>{static_cast<T*>(c.x), static_cast<const T*>(p.x), static_cast<const T*>(p.bias), plan.walk});
}

template <class T>
void add(void* stream, const AddPixelsCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const Pixels& p = c.pixels;
  const bool vector = p.channels % kPack == 0 && aligned16(c.x) && aligned16(p.x) && aligned16(p.bias);
  vector ? add_by<T, kPack>(stream, c) : add_by<T, 1>(stream, c);
}

template <class T>
struct WeaveArgs {
  T* out;
  const T *x, *bias;
  int64_t batch, rows, cols, channels;
  int packs;  // of a pixel
};

// Blocks are (part of a row of the result, row, picture).
template <class T, int kWidth>
__global__ void __launch_bounds__(kWalkers) weave(const __grid_constant__ WeaveArgs<T> a) {
  using A = Arith<T>;
  const int64_t width = 2 * a.cols * a.packs;
  for (int64_t b = blockIdx.z; b < a.batch; b += gridDim.z) {
    for (int64_t row = blockIdx.y; row < 2 * a.rows; row += gridDim.y) {
      for (int64_t i = blockIdx.x * kWalkers + threadIdx.x; i < width; i += gridDim.x * kWalkers) {
        const int col = static_cast<int>(i) / a.packs, c = (static_cast<int>(i) - col * a.packs) * kWidth;
        const int64_t k = row % 2, l = col % 2;
        const int64_t pixel = (b * (a.rows + 1) + row / 2 + k) * (a.cols + 1) + col / 2 + l;
        A v[kWidth], bias[kWidth] = {};
        unpack(v, load_pack<kWidth>(a.x + (pixel * 4 + 2 * k + l) * a.channels + c));
        if (a.bias != nullptr) unpack(bias, load_pack<kWidth>(a.bias + c));
#pragma unroll
        for (int j = 0; j < kWidth; ++j) v[j] += bias[j];
        store_pack(a.out + ((b * 2 * a.rows + row) * 2 * a.cols + col) * a.channels + c, pack_of<T>(v));
      }
    }
  }
}

template <class T>
void weave(void* stream, const WeaveCall& c) {
  constexpr int kPack = 16 / sizeof(T);
  const bool vector = c.channels % kPack == 0 && aligned16(c.out) && aligned16(c.x) && aligned16(c.bias);
  const int64_t packs = vector ? c.channels / kPack : c.channels;
  const dim3 grid(static_cast<unsigned>(std::min<int64_t>(ceil_div(2 * c.cols * packs, kWalkers), 1 << 20)),
                  static_cast<unsigned>(std::min<int64_t>(2 * c.rows, 65535)),
                  static_cast<unsigned>(std::min<int64_t>(c.batch, 65535)));
  const WeaveArgs<T> args{static_cast<T*>(c.out),
                          static_cast<const T*>(c.x),
                          static_cast<const T*>(c.bias),
                          c.batch,
                          c.rows,
                          c.cols,
                          c.channels,
                          static_cast<int>(packs)};
  launch(vector ? weave<T, kPack> : weave<T, 1>, grid, kWalkers, stream, args);
}

}  // namespace

void add_pixels(void* stream, const AddPixelsCall& call) {
  with_type(call.dtype, [&](auto type) { add<decltype(type)>(stream, call); });
}

void weave(void* stream, const WeaveCall& call) {
  with_type(call.dtype, [&](auto type) { weave<decltype(type)>(stream, call); });
}

}  // namespace atelier::kernels::cuda
