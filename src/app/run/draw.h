// Draws what is planned: progress, records, report, summary.
#pragma once
#include <chrono>
#include <functional>
#include <string>

#include "app/run/batches.h"
#include "app/run/interrupt.h"
#include "app/run/run_spec.h"
#include "cluster/batch_run.h"

namespace atelier::app {

// What starts the engine: run_batches of this machine, or of all machines of a launcher.
using StartRun = std::function<cluster::RunResult(const cluster::Job&, const Batches&,
                                                  const cluster::RunEvents&, const std::stop_token&)>;

// Returns the exit code: 0 all done, 1 something failed. Throws Error: kInterrupted after Ctrl-C, others when
// loading failed; what is finished by then is on disk and recorded.
int draw(RunSpec spec, const Resolved& resolved, const Interrupt& interrupt, const StartRun& start);

}  // namespace atelier::app
