// Pictures of 2x2 latents a token.
#pragma once
#include "models/family.h"

namespace atelier::models {

// latent_channels: of the autoencoder; spatial: pixels per latent row. Throws Error(kUsage) naming the nearest
// size for sides that are no multiples of two latents.
Grid grid_of_2x2(int64_t latent_channels, int64_t spatial, int64_t height, int64_t width);

}  // namespace atelier::models
