// What stale keys were measured to cost on the built-in model: the table behind PipeFusion's warnings.
#pragma once
#include <span>

namespace atelier::plan {

// One row of results/pipefusion_quality.json (tools/mini/pipefusion_quality.py makes it, a test compares
// them).
struct MeasuredQuality {
  int steps, patches, warmup;
  double psnr;   // dB against the picture of one rank, median over the captions
  double right;  // share of pictures that the checker finds right, in [0, 1]
};

std::span<const MeasuredQuality> measured_quality();
// The same share for one rank.
double right_of_one_rank(int steps);

// The row for a setting that was not measured itself: the nearest number of steps, and no milder in patches
// and warm-up, as far as there are such rows.
const MeasuredQuality& nearest_measured(int steps, int patches, int warmup);

}  // namespace atelier::plan
