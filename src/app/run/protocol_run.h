// Runs a benchmark protocol (bench/protocol.h): measurement by measurement, kept as it goes, so that a run
// that was interrupted goes on.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "app/compat/environment.h"
#include "app/settings/resolve.h"
#include "plan/hardware.h"

namespace atelier::app {

struct ProtocolOptions {
  std::string name;                 // as bench::ProtocolQuery
  std::vector<int> sizes, batches;  // empty: by the model's size; 1, 2, 4 (and 8 on GPUs)
  std::optional<plan::Hardware>
      hardware;         // what GPUs that are not here are modelled as; none: those that are
  std::string command;  // that repeats the run
};

// Writes into --output_dir: bench.json after every measurement, progress.md, then report.html,
// report.md, report.csv, charts/, heat/, traces/ and the pictures. Returns the exit code: 1 where a
// measurement failed or an exact layout drew another picture. Throws Error(kUsage) for a folder that
// holds another run, Error(kInterrupted).
int run_protocol(const Resolved& resolved, const Environment& variables, const ProtocolOptions& options);

}  // namespace atelier::app
