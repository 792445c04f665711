#include "models/patches.h"

#include <algorithm>

#include "base/error.h"

namespace atelier::models {

Grid grid_of_2x2(int64_t latent_channels, int64_t spatial, int64_t height, int64_t width) {
  const int64_t cell = 2 * spatial;
  if (height < cell || width < cell || height % cell != 0 || width % cell != 0) {
    const auto nearest = [&](int64_t side) { return std::max(cell, (side + cell / 2) / cell * cell); };
    throw Error(Kind::kUsage, str("a picture of ", width, "x", height,
                                  " was asked for; width and height must be multiples of ", cell, ": try ",
                                  nearest(width), "x", nearest(height)));
  }
  const int64_t rows = height / cell, cols = width / cell;
  return {.rows = rows,
          .cols = cols,
          .channels = 4 * latent_channels,
          .latent_channels = latent_channels,
          .latent_rows = 2 * rows,
          .latent_cols = 2 * cols};
}

}  // namespace atelier::models
