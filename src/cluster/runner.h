// What a worker runs: a loaded model, or what stands for one in a test.
#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "cluster/job.h"
#include "cluster/protocol.h"
#include "cluster/tensor_call.h"
#include "comm/comm.h"
#include "media/image.h"
#include "pipeline/denoise.h"
#include "request/request.h"

namespace atelier::cluster {

class Runner {
 public:
  virtual ~Runner() = default;
  // All ranks of the replica call it with the same batch. Artifacts on the replica's rank 0, nothing
  // elsewhere. Throws pipeline::RequestError, or Error(kInterrupted) when callbacks.may_begin says no, where
  // all ranks are done with the batch and may take the next one; anything else leaves peers that wait.
  virtual std::vector<media::Artifact> generate(request::Requests requests,
                                                const pipeline::StepCallbacks& callbacks) = 0;
  // The same for one call on tensors; sizes of the result, which lies in the call's memory, on rank 0.
  virtual std::vector<int64_t> answer(const TensorCall&, const pipeline::StepCallbacks&) {
    throw Error(Kind::kUsage, "this worker answers no calls");
  }
  virtual bool is_device_alive() const { return true; }  // false once the device refuses all further work
  virtual RankStats stats() const = 0;
  virtual BatchTimes times() const = 0;  // of the last batch
};

// transport: of the replica's ranks; null when it has one. Throws Error(kCheckpoint, kUsage, kCapacity,
// kPeer).
using MakeRunner = std::function<std::unique_ptr<Runner>(const pipeline::EngineConfig& config,
                                                         c10::Device device, comm::Transport* transport)>;

}  // namespace atelier::cluster
