// Timings of a layout on workers that stay loaded: what ships, with warm-up rounds that do not count.
#pragma once
#include <stop_token>
#include <vector>

#include "base/json.h"
#include "cluster/job.h"
#include "report/run_report.h"
#include "request/request.h"

namespace atelier::verify {

struct BenchOptions {
  cluster::Job job;
  std::vector<std::vector<request::Request>> round;  // batches, each drawn once per round
  int warmups = 2, runs = 5;                         // rounds
};

// Draws warmups + runs rounds; report gets the steps, phases and pictures of the last `runs`, and the peaks,
// kernels and failures of all. Returns what a run report has no place for: ranks, batch, warmups, runs,
// pictures_per_second, load_s (the slowest rank's), weight_bytes (per rank), device, and encode_s, denoise_s,
// decode_s, picture_s (per batch, as report::Series) and store_s (per picture). Throws what loading throws,
// Error(kInterrupted).
Json bench_layout(const BenchOptions& options, report::RunReport& report, const std::stop_token& stop);

}  // namespace atelier::verify
