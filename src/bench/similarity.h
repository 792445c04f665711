// How far a picture is from the one that one rank draws.
#pragma once
#include "media/image.h"

namespace atelier::bench {

struct Similarity {
  int most_levels = 0;  // of 255, the largest difference of a value
  double share = 0;     // of values that differ at all
  double psnr = 0;      // dB; infinite for equal pictures
  double ssim = 1;      // mean over windows of 11x11, Gaussian of 1.5, of luma [Wang et al. 2004]
};

// Throws Error(kItem) for pictures of two sizes.
Similarity similarity(const media::Image& picture, const media::Image& reference);

// The largest difference of a pixel's three values, black for none, white for kHottest levels and more.
inline constexpr int kHottest = 64;
media::Image heat_map(const media::Image& picture, const media::Image& reference);

// Side by side, of one height, with `gap` white columns between them.
media::Image beside(const std::vector<media::Image>& pictures, int gap);
// Mean of squares of `factor` pixels: for thumbnails.
media::Image reduced(const media::Image& picture, int factor);

}  // namespace atelier::bench
