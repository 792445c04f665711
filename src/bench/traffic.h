// What ranks told each other in one batch: calls and bytes from their logs, times from a trace.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace atelier::bench {

class Traffic {
 public:
  // A rank's log of DG_DEBUG; its last batch counts.
  void add_log(int rank, std::string_view log);
  // Rank 0's trace of that batch, as Perfetto opens it: kernels of NCCL, calls of Gloo.
  void add_trace(const Json& trace);

  // {"kind": "measured", "collectives": [{"verb", "calls", "bytes", of all ranks; "ms", "gb_per_s", of rank
  // 0}], "under_way_ms", "batch_ms", "share"}; times only where the trace has them. Sends and receives count
  // for the verb that sends nearly all bytes; where there is none, for the sum alone.
  Json json(double batch_ms) const;

 private:
  using TimeSpan = std::pair<double, double>;  // us
  struct Verb {
    int64_t calls = 0, bytes = 0;
    int64_t first_bytes = 0;  // of rank 0
    std::vector<TimeSpan> spans;
  };
  Verb* sole_sender();

  std::map<std::string, Verb> verbs_;
  std::vector<TimeSpan> untold_;  // under way for one verb or another
};

// The time that at least one of them covers.
double covered(std::vector<std::pair<double, double>> spans);

}  // namespace atelier::bench
