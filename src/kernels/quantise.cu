// norm_modulate_e4m3 and quantise_e4m3 on CUDA: a block per row, whose numbers stay in registers between the
// largest magnitude and the bytes.
#include <cuda_fp8.h>

#include "kernels/cuda.h"
#include "kernels/device.cuh"
#include "kernels/e4m3_math.h"

namespace atelier::kernels::cuda {
namespace {

constexpr int kUnit = 16;         // numbers that a thread takes at a time: 16 bytes of the result
constexpr int kMaxThreads = 320;  // ten warps, so that 15360 numbers are three units a thread
constexpr int kByElement = 256;   // threads where numbers are not held

// The block's maximum, with scratch as block_sum has it.
__device__ __forceinline__ float block_most(float value, float* scratch) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  float most = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) most = fmaxf(most, scratch[warp]);
  return most;
}

// A unit as it lies in memory.
template <class T>
struct Raw {
  static constexpr int kWidth = 16 / sizeof(T), kCount = kUnit / kWidth;
  Pack<T, kWidth> pack[kCount];
};
template <class T>
__device__ __forceinline__ Raw<T> load_unit(const T* from) {
  Raw<T> raw;
#pragma unroll
  for (int i = 0; i < Raw<T>::kCount; ++i) raw.pack[i] = load_pack<Raw<T>::kWidth>(from + i * Raw<T>::kWidth);
  return raw;
}
template <class T>
__device__ __forceinline__ void unpack_unit(float (&to)[kUnit], const Raw<T>& raw) {
#pragma unroll
  for (int i = 0; i < Raw<T>::kCount; ++i) {
    Arith<T> part[Raw<T>::kWidth];
    unpack(part, raw.pack[i]);
#pragma unroll
    for (int j = 0; j < Raw<T>::kWidth; ++j) to[i * Raw<T>::kWidth + j] = static_cast<float>(part[j]);
  }
}

__device__ __forceinline__ float most_of(float most, const float (&v)[kUnit]) {
#pragma unroll
  for (int j = 0; j < kUnit; ++j) most = e4m3::larger(most, v[j]);
  return most;
}

__device__ __forceinline__ uint8_t byte_of(float v, float inverse) {
  return __nv_cvt_float_to_fp8(e4m3::times(v, inverse), __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ void store_unit(uint8_t* to, const float (&v)[kUnit], float inverse) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 low{e4m3::times(v[4 * i], inverse), e4m3::times(v[4 * i + 1], inverse)};
    const float2 high{e4m3::times(v[4 * i + 2], inverse), e4m3::times(v[4 * i + 3], inverse)};
    word[i] = __nv_cvt_float2_to_fp8x2(low, __NV_SATFINITE, __NV_E4M3) |
              static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(high, __NV_SATFINITE, __NV_E4M3)) << 16;
  }
  store16(to, {word[0], word[1], word[2], word[3]});
}

// The row's scale and its bytes, from numbers in registers.
template <int kHeld>
__device__ __forceinline__ void write_row(const float (&v)[kHeld][kUnit], int units, const E4m3Rows& out,
                                          int64_t row, float* scratch) {
  float most = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (static_cast<int>(threadIdx.x + i * blockDim.x) < units) most = most_of(most, v[i]);
  }
  const auto by = e4m3::scale_of(block_most(most, scratch));
  if (threadIdx.x == 0) out.scales[row] = by.scale;
  uint8_t* to = static_cast<uint8_t*>(out.rows) + row * units * kUnit;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at < units) store_unit(to + at * kUnit, v[i], by.inverse);
  }
}

// Any width and alignment: one number at a time, made again in each pass. value(c): the row's number c.
template <class F>
__device__ __forceinline__ void write_row_by_element(const F& value, int64_t channels, const E4m3Rows& out,
                                                     int64_t row, float* scratch) {
  float most = 0;
  for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) most = e4m3::larger(most, value(c));
  const auto by = e4m3::scale_of(block_most(most, scratch));
  if (threadIdx.x == 0) out.scales[row] = by.scale;
  uint8_t* to = static_cast<uint8_t*>(out.rows) + row * channels;
  for (int64_t c = threadIdx.x; c < channels; c += blockDim.x) to[c] = byte_of(value(c), by.inverse);
  __syncthreads();  // scratch is used again
}

template <class F>
__device__ __forceinline__ double sum_by_element(const F& value, int64_t channels, double* scratch) {
  double sum = 0;
  for (int64_t c = int64_t{threadIdx.x} * e4m3::kRun; c < channels; c += int64_t{blockDim.x} * e4m3::kRun) {
    const int64_t end = c + e4m3::kRun < channels ? c + e4m3::kRun : channels;
    float run = value(c);
    for (int64_t i = c + 1; i < end; ++i) run = e4m3::add(run, value(i));
    sum += static_cast<double>(run);
  }
  return block_sum(sum, scratch);
}

template <class T>
struct NormArgs {
  E4m3Rows out;
  const T *x, *shift, *scale;
  int64_t rows, batch, channels, mod_stride;
  double eps;
};

// Sums of runs of eight numbers, each in order.
template <class F>
__device__ __forceinline__ double runs_of(const float (&v)[kUnit], const F& f) {
  double sum = 0;
#pragma unroll
  for (int first = 0; first < kUnit; first += e4m3::kRun) {
    float run = f(v[first]);
#pragma unroll
    for (int j = 1; j < e4m3::kRun; ++j) run = e4m3::add(run, f(v[first + j]));
    sum += static_cast<double>(run);
  }
  return sum;
}

template <class T, int kHeld>
__global__ void __launch_bounds__(kMaxThreads) norm_in_registers(const __grid_constant__ NormArgs<T> a) {
  __shared__ double sums[32], squares[32];
  __shared__ float largest[32];
  const int units = static_cast<int>(a.channels / kUnit);
  const int64_t row = blockIdx.x;
  const T* x = a.x + row * a.channels;
  const int64_t mod = a.batch == 1 ? 0 : row % a.batch * a.mod_stride;
  float v[kHeld][kUnit];
  Raw<T> shift[kHeld], scale[kHeld];
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at >= units) continue;
    unpack_unit(v[i], load_unit(x + at * kUnit));
    shift[i] = load_unit(a.shift + mod + at * kUnit);  // asked for before the sums, which wait for x
    scale[i] = load_unit(a.scale + mod + at * kUnit);
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (static_cast<int>(threadIdx.x + i * blockDim.x) >= units) continue;
    sum += runs_of(v[i], [](float one) { return one; });
  }
  const float mean = e4m3::mean_of(block_sum(sum, sums), a.channels);
  double square = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (static_cast<int>(threadIdx.x + i * blockDim.x) >= units) continue;
    square += runs_of(v[i], [&](float one) { return e4m3::squared_distance(one, mean); });
  }
  const e4m3::Moments moments{mean, e4m3::inverse_deviation(block_sum(square, squares), a.channels, a.eps)};
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (static_cast<int>(threadIdx.x + i * blockDim.x) >= units) continue;
    float by[kUnit], plus[kUnit];
    unpack_unit(by, scale[i]);
    unpack_unit(plus, shift[i]);
#pragma unroll
    for (int j = 0; j < kUnit; ++j) v[i][j] = e4m3::modulated(v[i][j], moments, by[j], plus[j]);
  }
  write_row(v, units, a.out, row, largest);
}

template <class T>
__global__ void __launch_bounds__(kByElement) norm_by_element(const __grid_constant__ NormArgs<T> a) {
  __shared__ double sums[32], squares[32];
  __shared__ float largest[32];
  const int64_t row = blockIdx.x, mod = row % a.batch * a.mod_stride;
  const T* x = a.x + row * a.channels;
  const auto number = [&](int64_t c) { return static_cast<float>(load(x[c])); };
  const float mean = e4m3::mean_of(sum_by_element(number, a.channels, sums), a.channels);
  const double square =
      sum_by_element([&](int64_t c) { return e4m3::squared_distance(number(c), mean); }, a.channels, squares);
  const e4m3::Moments moments{mean, e4m3::inverse_deviation(square, a.channels, a.eps)};
  write_row_by_element(
      [&](int64_t c) {
        return e4m3::modulated(number(c), moments, static_cast<float>(load(a.scale[mod + c])),
                               static_cast<float>(load(a.shift[mod + c])));
      },
      a.channels, a.out, row, largest);
}

template <class T, int kHeld>
__global__ void __launch_bounds__(kMaxThreads) rows_in_registers(const __grid_constant__ QuantiseE4m3Call a) {
  __shared__ float largest[32];
  const int units = static_cast<int>(a.channels / kUnit);
  const int64_t row = blockIdx.x;
  Raw<T> raw[kHeld];
  bool gelu[kHeld];
  float v[kHeld][kUnit];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int at = threadIdx.x + i * blockDim.x;
    if (at >= units) continue;
    int s = 0;
    int64_t column = int64_t{at} * kUnit;
    while (column >= a.segments[s].channels) column -= a.segments[s++].channels;
    raw[i] = load_unit(static_cast<const T*>(a.segments[s].x) + row * a.segments[s].row_stride + column);
    gelu[i] = a.segments[s].gelu;
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    if (static_cast<int>(threadIdx.x + i * blockDim.x) >= units) continue;
    unpack_unit(v[i], raw[i]);
    if (!gelu[i]) continue;
#pragma unroll
    for (int j = 0; j < kUnit; ++j) v[i][j] = e4m3::gelu(v[i][j]);
  }
  write_row(v, units, a.out, row, largest);
}

template <class T>
__global__ void __launch_bounds__(kByElement) rows_by_element(const __grid_constant__ QuantiseE4m3Call a) {
  __shared__ float largest[32];
  const int64_t row = blockIdx.x;
  write_row_by_element(
      [&](int64_t c) {
        int s = 0;
        while (c >= a.segments[s].channels) c -= a.segments[s++].channels;
        const T* x = static_cast<const T*>(a.segments[s].x) + row * a.segments[s].row_stride;
        const float v = static_cast<float>(load(x[c]));
        return a.segments[s].gelu ? e4m3::gelu(v) : v;
      },
      a.channels, a.out, row, largest);
}

// by_held[i]: the kernel that holds i + 1 units a thread.
template <class Args, size_t kKernels>
void launch_rows(void (*const (&by_held)[kKernels])(Args), void (*by_element)(Args), bool vector,
                 void* stream, const Args& args) {
  const dim3 grid(static_cast<unsigned>(args.rows));
  const int64_t units = args.channels / kUnit;
  const int64_t held = ceil_div(units, kMaxThreads);
  if (!vector || held > static_cast<int64_t>(kKernels))
    return launch(by_element, grid, kByElement, stream, args);
  const int threads = static_cast<int>(ceil_div(ceil_div(units, held), 32) * 32);
  launch(by_held[held - 1], grid, threads, stream, args);
}

template <class T>
void run(void* stream, const NormModulateE4m3Call& c) {
  const NormArgs<T> args{c.out,
                         static_cast<const T*>(c.x),
                         static_cast<const T*>(c.shift),
                         static_cast<const T*>(c.scale),
                         c.n * c.batch,
                         c.batch,
                         c.channels,
                         c.mod_stride,
                         c.eps};
  constexpr int64_t kWidth = 16 / sizeof(T);
  const bool vector = c.channels % kUnit == 0 && (c.batch == 1 || c.mod_stride % kWidth == 0) &&
                      aligned16(c.out.rows) && aligned16(c.x) && aligned16(c.shift) && aligned16(c.scale);
  if constexpr (sizeof(T) <= sizeof(float)) {
    void (*const held[])(NormArgs<T>) = {norm_in_registers<T, 1>, norm_in_registers<T, 2>};
    launch_rows(held, norm_by_element<T>, vector, stream, args);
  } else {
    launch(norm_by_element<T>, dim3(static_cast<unsigned>(args.rows)), kByElement, stream, args);
  }
}

template <class T>
void run(void* stream, const QuantiseE4m3Call& c) {
  constexpr int64_t kWidth = 16 / sizeof(T);
  bool vector = aligned16(c.out.rows);
  for (int64_t i = 0; i < c.count; ++i) {
    const RowSegment& s = c.segments[i];
    vector =
        vector && s.channels % kUnit == 0 && aligned16(s.x) && (c.rows == 1 || s.row_stride % kWidth == 0);
  }
  if constexpr (sizeof(T) <= sizeof(float)) {
    void (*const held[])(QuantiseE4m3Call) = {rows_in_registers<T, 1>, rows_in_registers<T, 2>,
                                              rows_in_registers<T, 3>, rows_in_registers<T, 4>,
                                              rows_in_registers<T, 5>, rows_in_registers<T, 6>};
    launch_rows(held, rows_by_element<T>, vector, stream, c);
  } else {
    launch(rows_by_element<T>, dim3(static_cast<unsigned>(c.rows)), kByElement, stream, c);
  }
}

}  // namespace

void norm_modulate_e4m3(void* stream, const NormModulateE4m3Call& call) {
  with_type(call.dtype, [&](auto type) { run<decltype(type)>(stream, call); });
}

void quantise_e4m3(void* stream, const QuantiseE4m3Call& call) {
  with_type(call.dtype, [&](auto type) { run<decltype(type)>(stream, call); });
}

}  // namespace atelier::kernels::cuda
