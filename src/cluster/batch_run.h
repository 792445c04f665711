// The command line's run: a finite list of batches through a worker pool, from load to the last picture.
#pragma once
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "cluster/worker_pool.h"

namespace atelier::cluster {

// What the caller sees while pictures are drawn; called on the caller's thread. What they throw ends the run.
struct RunEvents {
  std::function<void(const std::string& phase)> on_phase;  // "load", "ready"
  std::function<void(const StepDone&)> on_step;
  std::function<void(const PreviewReady&)> on_preview;
  std::function<void(const RequestNote&)> on_note;
  std::function<void(const BatchGenerated&)> on_generated;  // its pictures are not stored yet
  std::function<void(const ArtifactStored&)> on_stored;
  std::function<void(const std::string& reason)> on_restart;  // of the workers of a group
};

struct RunResult {
  std::vector<RankStats> ranks;
  std::vector<RequestFailed> failures;
  int restarts = 0;
};

// Gives the next batch of a run; an empty one: there are no more.
using BatchSource = std::function<std::vector<request::Request>()>;

// Batches are asked for while others are drawn, so that few of them are held at a time.
// coordinator: null when all ranks are processes of this one. Returns when all requests are stored or have
// failed; throws what WorkerPool throws, and Error(kInterrupted) after a stop request. No worker lives then.
RunResult run_batches(const Job& job, const BatchSource& batches, const RunEvents& events,
                      const std::stop_token& stop, Coordinator* coordinator = nullptr);
// The same for batches that are all there.
RunResult run_batches(const Job& job, std::vector<std::vector<request::Request>> batches,
                      const RunEvents& events, const std::stop_token& stop,
                      Coordinator* coordinator = nullptr);

}  // namespace atelier::cluster
