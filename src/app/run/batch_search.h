// The search for the largest batch: doubling until one does not fit, then halving what is between.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

namespace atelier::app {

struct Tried {
  bool fits = false;
  std::string reason = {};  // where it does not fit
  double pictures_per_second = 0;
};

struct LargestBatch {
  int64_t size = 0;     // 0: not even one
  Tried next = {};      // of size + 1; no reason: it was not tried, as `most` was reached
  int64_t fastest = 0;  // of those tried, the one with most pictures per second
};

// attempt is called with sizes from 1 to `most`, each at most once; what fits once is taken to
// fit when smaller.
LargestBatch largest_that_fits(int64_t most, const std::function<Tried(int64_t size)>& attempt);

}  // namespace atelier::app
