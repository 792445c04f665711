// A barrier of several devices that can address each other's memory, on their streams.
#pragma once
#include <cstdint>

#include "kernels/types.h"

namespace atelier::kernels {

constexpr int kMaxBarrierRanks = 16;

// Each rank's pad: one word per rank that the others write, then the number of barriers it has begun. Zeroed
// before the first barrier.
struct BarrierPads {
  uint32_t* pads[kMaxBarrierRanks] = {};
};

// What a rank queued before is done, and seen by those who are behind their barrier. Needs plain loads and
// stores of peers' memory only, may be captured into a CUDA graph, and ends early once *aborted, host memory
// that the device can read, is not zero. CUDA only.
void window_barrier(LaunchTarget where, const BarrierPads& pads, int rank, int size,
                    const volatile int* aborted);

}  // namespace atelier::kernels
