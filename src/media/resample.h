// Pictures in another size.
#pragma once
#include "media/image.h"

namespace atelier::media {

enum class Filter {
  kLanczos,  // with three lobes
  kBicubic,  // a = -0.5 [Keys 1981]
};

// In fixed point, to the bit what Pillow's Image.resize makes of an RGB picture (upstream: Pillow
// src/libImaging/Resample.c): columns first, then rows, with 8 bits between. The filter is as wide as the
// picture shrinks. A picture that has the size already stays as it is.
Image resized(const Image& picture, int width, int height, Filter filter = Filter::kLanczos);

}  // namespace atelier::media
