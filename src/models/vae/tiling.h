// Tiles of pictures and videos, put together again.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace atelier::models {

// Sides of square tiles.
struct Tiling {
  int64_t in, step;     // of what is read, and from one tile to the next
  int64_t blend, keep;  // of what is made: how much fades into the next tile, how much of each remains
};

// Runs every tile of x [..., rows, W], and blends each with the one above, then with the one on its left,
// both blended already. Upstream: tiled_decode and tiled_encode of diffusers' autoencoders.
at::Tensor tiled(const at::Tensor& x, const Tiling& tiling,
                 const std::function<at::Tensor(const at::Tensor&)>& run);

}  // namespace atelier::models
