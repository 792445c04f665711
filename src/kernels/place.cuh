// What a lane of place.cu holds of a head, and how it comes from memory and goes there.
#pragma once
#include <cuda_fp8.h>

#include "kernels/calls.h"
#include "kernels/device.cuh"
#include "kernels/e4m3_math.h"

namespace atelier::kernels::cuda::placing {

constexpr int kPairs = 4;
constexpr int kHeadsPerLaunch = 128;

// A byte of e4m3.
struct E4m3 {
  uint8_t bits;
};

// How the elements of a head lie in its lanes: runs of eight neighbours, moved in packs or one by one, or
// pairs that are 32 pairs apart.
enum class LaneForm { kPacks, kRuns, kApart };

// What a lane holds of one head: numbers, or where the target takes bytes, eight of those.
template <class T>
using LaneHead = Pack<T, 2 * kPairs>;
template <class T, class Out>
using Placed = std::conditional_t<std::is_same_v<Out, E4m3>, uint2, LaneHead<T>>;

template <class T>
struct HeadStream {
  const T* data;
  int64_t token_stride, batch_stride, head_stride;
};

template <class T>
struct LaneRule {
  const T *weight, *bias;
  double eps;
  Norm norm;
};

template <class Out>
struct HeadTarget {
  Out *q, *kv;
  int first_head, heads;
};

template <class T, class Out>
struct Args {
  HeadStream<T> q, k, v;
  LaneRule<T> rule_q, rule_k;
  const Arith<T>*cos, *sin;
  int64_t rows, batch;        // rows = tokens x batch
  int first_head, last_head;  // this launch's heads
  int head_dim;
  Arith<T> inverse_dim;
  int lanes;       // threads per head
  int head_slots;  // heads that a block works on at a time, a power of two
  HeadTarget<Out> slots[kMaxTargets];
  uint8_t owner[kHeadsPerLaunch];  // head - first_head -> slot
  Out* kv_copies[kMaxTargets];     // of all heads
  int kv_copy_count, all_heads;
};
static_assert(sizeof(Args<double, double>) <= 4096, "kernel parameters end at 4 KB on the oldest toolkits");

// Which elements a lane holds: pairs p = 0..3 start at element(p), and exist where that is inside the head.
template <LaneForm kForm>
__device__ __forceinline__ int element(int lane, int p) {
  return kForm == LaneForm::kApart ? 2 * (lane + 32 * p) : lane * 2 * kPairs + 2 * p;
}

// A lane's elements of one head; zeros where it has none.
template <LaneForm kForm, class T>
__device__ __forceinline__ LaneHead<T> load_head(const T* from, int lane, int d, bool active) {
  Arith<T> v[2 * kPairs] = {};
  if constexpr (kForm == LaneForm::kPacks) {
    if (active && element<kForm>(lane, 0) < d) return load_pack<2 * kPairs>(from + element<kForm>(lane, 0));
  } else {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int at = element<kForm>(lane, p);
      if (!active || at >= d) continue;
      v[2 * p] = load(from[at]);
      v[2 * p + 1] = load(from[at + 1]);
    }
  }
  return pack_of<T>(v);
}

template <LaneForm kForm, class T>
__device__ __forceinline__ void store_head(T* to, const LaneHead<T>& head, int lane, int d) {
  if constexpr (kForm == LaneForm::kPacks) {
    if (element<kForm>(lane, 0) < d) store_pack(to + element<kForm>(lane, 0), head);
  } else {
    Arith<T> v[2 * kPairs];
    unpack(v, head);
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int at = element<kForm>(lane, p);
      if (at >= d) continue;
      to[at] = round_to<T>(v[2 * p]);
      to[at + 1] = round_to<T>(v[2 * p + 1]);
    }
  }
}
template <LaneForm kForm>
__device__ __forceinline__ void store_head(E4m3* to, const uint2& bytes, int lane, int d) {
  static_assert(kForm != LaneForm::kApart, "a lane's bytes are neighbours");
  if (element<kForm>(lane, 0) < d) *reinterpret_cast<uint2*>(to + element<kForm>(lane, 0)) = bytes;
}

// One lane's share of cos or sin.
template <LaneForm kForm, class A>
__device__ __forceinline__ void load_table(A (&to)[kPairs], const A* from, int lane, int d) {
  if constexpr (kForm == LaneForm::kPacks) {
    if (element<kForm>(lane, 0) >= d) return;
    unpack(to, load_pack<kPairs>(from + lane * kPairs));
  } else {
#pragma unroll
    for (int p = 0; p < kPairs; ++p) {
      const int at = element<kForm>(lane, p);
      if (at < d) to[p] = from[at / 2];
    }
  }
}

template <LaneForm kForm, class T>
__device__ __forceinline__ LaneHead<T> load_weight(const LaneRule<T>& rule, int lane, int d) {
  if (rule.weight != nullptr) return load_head<kForm>(rule.weight, lane, d, true);
  const Arith<T> ones[2 * kPairs] = {1, 1, 1, 1, 1, 1, 1, 1};
  return pack_of<T>(ones);
}

template <class T>
__device__ __forceinline__ void floats_of(float (&to)[2 * kPairs], const LaneHead<T>& head) {
  Arith<T> v[2 * kPairs];
  unpack(v, head);
#pragma unroll
  for (int i = 0; i < 2 * kPairs; ++i) to[i] = static_cast<float>(v[i]);
}

__device__ __forceinline__ uint2 bytes_of(const float (&v)[2 * kPairs]) {
  uint32_t word[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float2 low{v[4 * i], v[4 * i + 1]}, high{v[4 * i + 2], v[4 * i + 3]};
    word[i] = __nv_cvt_float2_to_fp8x2(low, __NV_SATFINITE, __NV_E4M3) |
              static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(high, __NV_SATFINITE, __NV_E4M3)) << 16;
  }
  return {word[0], word[1]};
}

}  // namespace atelier::kernels::cuda::placing
