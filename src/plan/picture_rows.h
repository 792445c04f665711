// When an autoencoder's work on a picture is worth sharing: the one rule that planner and ranks follow.
#pragma once
#include <cstdint>

#include "plan/parallel_config.h"

namespace atelier::plan {

// What an autoencoder is given at once.
struct CodedPicture {
  int64_t latent_rows = 0;
  int64_t pixels = 0;      // of one pass: of all pictures of a batch, of the frames that a latent frame makes
  bool is_device = true;   // a GPU
  bool has_tiles = false;  // tiles are asked for: they hold less than rows do, on one rank
};

// Ranks that draw one batch together.
int replica_size(const ParallelConfig& degrees);
// May they ever? Then each holds the autoencoder's weights.
bool may_code_by_rows(const ParallelConfig& degrees, bool has_tiles);
// Does each code its rows of this picture? Otherwise the first of them codes it whole. By size: not where
// tiles are asked for, where a rank would hold fewer than kLeastLatentRows latent rows, and below
// kLeastPixels (a third on CPUs), where messages may take longer than what they save.
bool codes_by_rows(const ParallelConfig& degrees, const CodedPicture& picture);

// Both edges that a 3x3 convolution asks of neighbours are then at most half of what a rank holds.
inline constexpr int64_t kLeastLatentRows = 4;
// 0.75 megapixels. Decoding by rows takes 1.1 times a rank's share and 3 to 7 ms of messages per pass
// (docs/plan.md), 1024 x 1024 pixels take 19 ms on one H200: two ranks are level at 0.8 of a megapixel, four
// at 0.5.
inline constexpr int64_t kLeastPixels = 3 << 18;

}  // namespace atelier::plan
