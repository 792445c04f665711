// How threads walk over pictures with their channels last: each owns a pack of channels, whose constants it
// keeps in registers, and goes down a run of positions.
#pragma once
#include "kernels/device.cuh"

namespace atelier::kernels::cuda {

inline constexpr int kWalkers = 256;  // threads of a block
inline constexpr int kAhead = 4;      // positions whose loads overlap

// Blocks are (tile of channels, run of positions, picture).
struct PixelWalk {
  int64_t batch, positions, channels, run;  // run: positions of a block
  int tile, lanes;  // packs of a tile, positions side by side; tile * lanes <= kWalkers
};

// This thread's place in it.
template <int kWidth>
struct Walker {
  int64_t channel, position, end;
  bool is_idle;
  __device__ explicit Walker(const PixelWalk& w) {
    const int pack = static_cast<int>(threadIdx.x) % w.tile, lane = static_cast<int>(threadIdx.x) / w.tile;
    channel = (static_cast<int64_t>(blockIdx.x) * w.tile + pack) * kWidth;
    position = blockIdx.y * w.run + lane;
    end = min((blockIdx.y + 1) * w.run, w.positions);
    is_idle = lane >= w.lanes || channel >= w.channels;
  }
};

struct WalkPlan {
  PixelWalk walk;
  dim3 grid;
};

// At most `runs` runs of positions.
inline WalkPlan plan_walk(int64_t batch, int64_t positions, int64_t channels, int width, int64_t runs) {
  const int64_t packs = ceil_div(channels, width), tile = std::min<int64_t>(packs, kWalkers);
  const int64_t run = ceil_div(positions, std::min(runs, positions));
  return {{batch, positions, channels, run, static_cast<int>(tile), static_cast<int>(kWalkers / tile)},
          dim3(static_cast<unsigned>(ceil_div(packs, tile)), static_cast<unsigned>(ceil_div(positions, run)),
               static_cast<unsigned>(std::min<int64_t>(batch, 65535)))};
}

// Runs for a kernel whose blocks have little to set up: three waves of the three blocks that each
// multiprocessor of a large GPU holds.
inline int64_t short_runs(int64_t batch, int64_t positions, int64_t channels, int width) {
  const int64_t lanes = std::max<int64_t>(1, kWalkers * width / channels);
  const int64_t blocks = std::max<int64_t>(1, 1188 / (ceil_div(channels, width * kWalkers) * batch));
  return std::clamp<int64_t>(positions / (lanes * kAhead), 1, blocks);
}

}  // namespace atelier::kernels::cuda
