// Several ranks as threads of this process: on the CPU, or one GPU each. For verify --strategy, the parity
// matrix; runs that must survive a dead rank have a process per rank (cluster/).
#pragma once
#include <functional>
#include <span>

#include "comm/comm.h"
#include "nn/sdpa.h"
#include "parallel/parallel_context.h"
#include "pipeline/pipeline.h"
#include "plan/parallel_config.h"
#include "plan/route.h"

namespace atelier::verify {

// One of them.
struct ThreadRank {
  parallel::ParallelContext& context;
  c10::Device device;
  int rank;
  comm::Transport* transport;  // null: the only one
  void abort();                // peers wait for this rank no longer
};

// Calls `work` on every rank of the plan. One rank uses `device`; several use the CPU, or the GPUs 0, 1, ...
// Throws what the first failing rank threw, Error(kUsage) for too few GPUs.
void on_threads(const plan::Plan& plan, c10::Device device, nn::SdpaBackend attention,
                const std::function<void(ThreadRank&)>& work);

// Loads the model on every rank of the layout and calls `work` there.
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
