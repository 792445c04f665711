// Several ranks as threads of this process: on the CPU, or one GPU each. For verify --strategy, the parity
// matrix and timings; runs that must survive a dead rank have a process per rank (supervisor.h).
#pragma once
#include <functional>
#include <span>

#include "engine/pipeline.h"
#include "parallel/strategy.h"

namespace atelier::engine {

// Loads the model on every rank of the layout and calls `work` there. One rank uses the device of `load`;
// several use the CPU, or the GPUs 0, 1, ... Throws what the first failing rank threw, Error(kUsage) for too
// few GPUs.
void on_ranks(const ModelFolder& folder, const parallel::Degrees& degrees, const LoadOptions& load,
              const std::function<void(Pipeline&, int rank)>& work);

// Draws one request. Pictures of the writing rank of replica 0. Throws Error(kUsage) for a layout that this
// request does not allow, before anything loads.
std::vector<media::Picture> draw_on_ranks(const ModelFolder& folder, const parallel::Degrees& degrees,
                                          const LoadOptions& load, const Request& request, Collector* taps);

}  // namespace atelier::engine
