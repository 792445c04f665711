// What the CUDA kernels share: element types, packs of elements that move in one access, sums over a warp,
// launches.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/types.h"

namespace atelier::kernels::cuda {

// The type that a kernel computes in.
template <class T>
using Arith = std::conditional_t<std::is_same_v<T, double>, double, float>;

__device__ __forceinline__ float load(float v) {
  return v;
}
__device__ __forceinline__ double load(double v) {
  return v;
}
__device__ __forceinline__ float load(__nv_bfloat16 v) {
  return __bfloat162float(v);
}
__device__ __forceinline__ float load(__half v) {
  return __half2float(v);
}

template <class T>
__device__ __forceinline__ T round_to(Arith<T> v) {
  return static_cast<T>(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 round_to<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}
template <>
__device__ __forceinline__ __half round_to<__half>(float v) {
  return __float2half_rn(v);
}

__device__ __forceinline__ float inverse_root(float v) {
  return rsqrtf(v);
}
__device__ __forceinline__ double inverse_root(double v) {
  return rsqrt(v);
}

// 2^v and 1/v by the hardware's approximations, good to one or two units in the last place.
__device__ __forceinline__ float power_of_two(float v) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}
__device__ __forceinline__ double power_of_two(double v) {
  return exp2(v);
}
__device__ __forceinline__ float inverse(float v) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(v));
  return out;
}
__device__ __forceinline__ double inverse(double v) {
  return 1 / v;
}

// 0.5 v (1 + tanh u) = v / (1 + e^-2u) with u = sqrt(2/pi) (v + 0.044715 v^3), the exponential as 2^w.
template <class A>
__device__ __forceinline__ A gelu(A v) {
  return v * inverse(A(1) + power_of_two(v * (A(-0.1029432395800235) * v * v - A(2.302208198144325))));
}

// v / (1 + e^-v)
__device__ __forceinline__ float silu(float v) {
  return v * inverse(1.0f + power_of_two(v * -1.4426950408889634f));
}
__device__ __forceinline__ double silu(double v) {
  return v / (1 + exp(-v));
}

// kWidth elements, moved in accesses of 16 bytes where there are that many.
template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth < 16 ? sizeof(T) * kWidth : 16) Pack {
  static constexpr bool kHalves = sizeof(T) == 2 && kWidth % 2 == 0;  // two elements in one register
  using Unit = std::conditional_t<kHalves, uint32_t, T>;
  Unit unit[kHalves ? kWidth / 2 : kWidth];
};

template <int kWidth, class T>
__device__ __forceinline__ Pack<T, kWidth> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}

// One store of 16 bytes, spelled out: the compiler may split the assignment of a struct into stores of 4, and
// the store intrinsics order more than is needed.
__device__ __forceinline__ void store16(void* to, uint4 v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

template <class T, int kWidth>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, kWidth>& pack) {
  constexpr int kWords = sizeof(pack) / sizeof(uint4);
  if constexpr (kWords > 0) {
    uint4 words[kWords];
    memcpy(words, &pack, sizeof(pack));
#pragma unroll
    for (int i = 0; i < kWords; ++i) store16(reinterpret_cast<uint4*>(to) + i, words[i]);
  } else {
    *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
  }
}

// The two elements in a register, low address first, and back.
template <class T>
__device__ __forceinline__ float2 split(uint32_t word) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
  } else {
    const __half2_raw raw{static_cast<uint16_t>(word), static_cast<uint16_t>(word >> 16)};
    return __half22float2(__half2(raw));
  }
}
template <class T>
__device__ __forceinline__ uint32_t join(float low, float high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const __nv_bfloat162_raw raw = __floats2bfloat162_rn(low, high);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
  } else {
    const __half2_raw raw = __floats2half2_rn(low, high);
    return raw.x | static_cast<uint32_t>(raw.y) << 16;
  }
}

template <class T, int kWidth>
__device__ __forceinline__ void unpack(Arith<T> (&to)[kWidth], const Pack<T, kWidth>& pack) {
  if constexpr (Pack<T, kWidth>::kHalves) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) {
      const float2 both = split<T>(pack.unit[i]);
      to[2 * i] = both.x;
      to[2 * i + 1] = both.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = load(pack.unit[i]);
  }
}

// Rounds, once.
template <class T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> pack_of(const Arith<T> (&from)[kWidth]) {
  Pack<T, kWidth> pack;
  if constexpr (Pack<T, kWidth>::kHalves) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) pack.unit[i] = join<T>(from[2 * i], from[2 * i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) pack.unit[i] = round_to<T>(from[i]);
  }
  return pack;
}

// Sum over the aligned group of `lanes` (a power of two) threads that this one belongs to; the whole warp
// calls it.
template <class A>
__device__ __forceinline__ A group_sum(A value, int lanes = 32) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const A other = __shfl_xor_sync(0xffffffffu, value, offset);
    value += offset < lanes ? other : A(0);  // a selection: cheaper than a branch around each step
  }
  return value;
}

// Sum over the block. Two calls in a row need different scratch, and so need no second barrier.
template <class A>
__device__ __forceinline__ A block_sum(A value, A* scratch) {
  value = group_sum(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  A total = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x / 32); ++warp) total += scratch[warp];
  return total;
}

// Calls f with a value of the element type.
template <class F>
void with_type(ElementType dtype, const F& f) {
  switch (dtype) {
    case ElementType::kF32:
      return f(float{});
    case ElementType::kF64:
      return f(double{});
    case ElementType::kBF16:
      return f(__nv_bfloat16{});
    case ElementType::kF16:
      return f(__half{});
  }
}

inline bool aligned16(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <class Args>
void launch(void (*kernel)(Args), dim3 grid, int threads, void* stream, const Args& args) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, args);
  if (status == cudaSuccess) return;
  // no Error: this rank stops in the middle of what its peers go on with
  throw std::runtime_error(std::string("a CUDA kernel could not be started: ") + cudaGetErrorString(status) +
                           "; check that this build names the GPU's architecture and that nothing failed on "
                           "the device before");
}

}  // namespace atelier::kernels::cuda
