// Timings of layouts with a model that stays loaded: milliseconds per step, phases, memory, kernels.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "verify/thread_ranks.h"

namespace atelier::verify {

struct BenchOptions {
  std::vector<request::Request> batch;
  pipeline::LoadOptions load;
  int warmups = 2, runs = 5;
};

// One layout: loads, draws warmups + runs times. Keys: layout, ranks, ms_per_step {median, min, max} of the
// runs (the slowest rank's denoising time over the steps), picture_s {...}, load_s, encode_s, decode_s,
// load_anonymous_host_bytes (the most that loading held in this process), weight_bytes and peak_bytes per
// rank, used, device, seed, size, steps. A layout that fails has "problem".
Json bench_layout(const pipeline::ModelRepo& folder, const std::string& layout, const BenchOptions& options);

}  // namespace atelier::verify
