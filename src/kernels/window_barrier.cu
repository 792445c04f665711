// A barrier of a few devices: one block, one thread per peer. Each barrier has a number, which every rank
// counts for itself in device memory, so that a recorded graph goes on counting; a word has one writer
// and only grows.
#include "kernels/device.cuh"
#include "kernels/window_barrier.h"

namespace atelier::kernels {
namespace {

__device__ __forceinline__ void store_release(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t load_acquire(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

constexpr uint32_t kPollsPerLook = 64;

struct Args {
  BarrierPads all;
  int rank, size;
  const volatile int* aborted;
};

__global__ void meet(Args a) {
  __shared__ uint32_t number;
  uint32_t* const own = a.all.pads[a.rank];
  if (threadIdx.x == 0) number = ++own[a.size];
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer >= a.size || peer == a.rank) return;
  __threadfence_system();
  store_release(a.all.pads[peer] + a.rank, number);
  // The difference of the counts: they may wrap around. The host's word lies across the bus: it is
  // looked at seldom.
  for (uint32_t polls = 1; static_cast<int32_t>(load_acquire(own + peer) - number) < 0; ++polls) {
    if (polls % kPollsPerLook == 0 && *a.aborted != 0) return;
    __nanosleep(20);
  }
}

}  // namespace

void window_barrier(LaunchTarget where, const BarrierPads& pads, int rank, int size,
                    const volatile int* aborted) {
  cuda::launch(meet, dim3(1), 32, where.stream, Args{pads, rank, size, aborted});
}

}  // namespace atelier::kernels
