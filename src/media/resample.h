// Pictures in another size.
#pragma once
#include "media/image.h"

namespace atelier::media {

// Lanczos resampling with three lobes, in fixed point, to the bit what Pillow's Image.resize makes of an RGB picture
// (upstream: Pillow src/libImaging/Resample.c): columns first, then rows, with 8 bits between. The filter is as wide as
// the picture shrinks. A picture that has the size already stays as it is.
Image resized(const Image& picture, int width, int height);

}  // namespace atelier::media
