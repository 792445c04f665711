// The fused pieces of convolutional autoencoders and UNets, over pictures whose channels lie last (NHWC). The
// contracts are those of kernels.h: raw pointers, a CPU twin and a CUDA implementation each, one rounding at
// the end, nothing allocates.
#pragma once
#include "kernels/types.h"

namespace atelier::kernels {

// Doubles of scratch that group_moments needs.
int64_t moments_scratch(const Pixels& pixels);

// moments [3, B, G]: how many numbers each group of each picture holds, the sum of x + bias over them, the
// sum of its squares. Sums of pieces of a picture add up to the picture's. Equal inputs give equal bits.
void group_moments(LaunchTarget where, ElementType dtype, const Pixels& pixels, int64_t groups,
                   double* moments, double* scratch);

// Group norm by given moments. Wu and He (arXiv 1803.08494).
struct GroupRule {
  const double* moments = nullptr;  // [3, B, G]
  int64_t groups = 1;               // divide the channels
  double eps = 0;
  const void *weight = nullptr, *shift = nullptr;  // [C]
  Nonlinearity nonlinearity = Nonlinearity::kNone;
};
// out = nonlinearity((x + bias - mean) / sqrt(variance + eps) * weight + shift). out may be x.
void group_norm(LaunchTarget where, ElementType dtype, void* out, const Pixels& pixels,
                const GroupRule& rule);

// Root-mean-square norm over the channels of every position.
struct ChannelRule {
  double scale = 1, least = 0;   // of the root of the sum of squares, which divides
  const void* weight = nullptr;  // [C]
  Nonlinearity nonlinearity = Nonlinearity::kNone;
};
// out = nonlinearity(v / max(|v|, least) * scale * weight) with v = x + bias. out may be x.
void channel_norm(LaunchTarget where, ElementType dtype, void* out, const Pixels& pixels,
                  const ChannelRule& rule);

// x += y + bias, where x lies like y.
void add_pixels(LaunchTarget where, ElementType dtype, void* x, const Pixels& y);

// out[b, 2i+k, 2j+l, :] = x[b, i+k, j+l, 2k+l, :] + bias for k, l in {0, 1}: x [B, rows+1, cols+1, 4, C], out
// [B, 2 rows, 2 cols, C], bias [C] or null. The four 2x2 convolutions that a 3x3 convolution of a picture
// doubled by repetition comes down to, put in their places.
void weave(LaunchTarget where, ElementType dtype, void* out, const void* x, const void* bias, int64_t batch,
           int64_t rows, int64_t cols, int64_t channels);

}  // namespace atelier::kernels
