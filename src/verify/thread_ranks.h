// Several ranks as threads of this process: on the CPU, or one GPU each. For verify --strategy, the parity
// matrix and timings; runs that must survive a dead rank have a process per rank (cluster/).
#pragma once
#include <functional>
#include <span>

#include "pipeline/pipeline.h"
#include "plan/parallel_config.h"

namespace atelier::verify {

// Loads the model on every rank of the layout and calls `work` there. One rank uses the device of `load`;
// several use the CPU, or the GPUs 0, 1, ... Throws what the first failing rank threw, Error(kUsage) for too
// few GPUs.
void on_ranks(const pipeline::ModelRepo& folder, const plan::ParallelConfig& degrees,
              const pipeline::LoadOptions& load,
              const std::function<void(pipeline::Pipeline&, int rank)>& work);

// Draws one batch. Artifacts of the writing rank of replica 0. Throws Error(kUsage) for a layout that this
// request does not allow, before anything loads.
std::vector<media::Artifact> generate_on_ranks(const pipeline::ModelRepo& folder,
                                               const plan::ParallelConfig& degrees,
                                               const pipeline::LoadOptions& load, request::Requests batch,
                                               pipeline::ActivationRecorder* probes,
                                               const pipeline::GivenNoise& noise = {});

}  // namespace atelier::verify
