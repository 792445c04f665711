#include "models/patches.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace atelier::models {

Grid grid_of_2x2(int64_t latent_channels, int64_t spatial, int64_t height, int64_t width,
                 std::optional<int64_t> most) {
  const int64_t cell = 2 * spatial, longest = most ? *most * cell : std::numeric_limits<int64_t>::max();
  const auto fits = [&](int64_t side) { return side >= cell && side <= longest && side % cell == 0; };
  if (!fits(height) || !fits(width)) {
    const auto nearest = [&](int64_t side) {
      return std::clamp((side + cell / 2) / cell * cell, cell, longest);
    };
    throw Error(
        Kind::kUsage,
        str("a picture of ", width, "x", height, " was asked for; width and height must be multiples of ",
            cell, most ? str(" up to ", longest) : "", ": try ", nearest(width), "x", nearest(height)));
  }
  const int64_t rows = height / cell, cols = width / cell;
  return {.rows = rows,
          .cols = cols,
          .channels = 4 * latent_channels,
          .latent_channels = latent_channels,
          .latent_rows = 2 * rows,
          .latent_cols = 2 * cols};
}

std::string size_note(int64_t side, int64_t height, int64_t width) {
  const auto share =
      static_cast<double>(height * width) / (static_cast<double>(side) * static_cast<double>(side));
  if (share >= 0.9 && share <= 1.1 && height <= 4 * width && width <= 4 * height) return {};
  return str(width, "x", height, " is not a size that this model was made for, which is about ", side, "x",
             side, " pixels in all; expect a weaker picture");
}

}  // namespace atelier::models
