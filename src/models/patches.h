// Pictures of 2x2 latents a token.
#pragma once
#include <optional>
#include <string>

#include "models/family.h"

namespace atelier::models {

// latent_channels: of the autoencoder; spatial: pixels per latent row. Throws Error(kUsage) naming
// the nearest size for sides that are no multiples of two latents, or longer than `most` tokens where
// that is given.
Grid grid_of_2x2(int64_t latent_channels, int64_t spatial, int64_t height, int64_t width,
                 std::optional<int64_t> most = std::nullopt);

// What to know of a size that a model was not made for, empty where it was: the pixels of a square of `side`
// within a tenth, sides of up to one to four. Every size is drawn as it is asked for.
std::string size_note(int64_t side, int64_t height, int64_t width);

}  // namespace atelier::models
