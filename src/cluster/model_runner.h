// One rank of a run at work: the model it has loaded, and the folder its pictures go to.
#pragma once
#include <c10/core/Device.h>

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cluster/job.h"
#include "comm/comm.h"
#include "jobs/output_folder.h"

namespace atelier::cluster {

class ModelRunner {
 public:
  // Makes the device current and loads this rank's part of the model. transport: null for a run of one rank;
  // all ranks construct theirs at the same time. Throws Error(kCheckpoint, kUsage, kCapacity, kPeer).
  ModelRunner(const Job& job, c10::Device device, comm::Transport* transport);
  ~ModelRunner();

  // Artifacts on the replica's rank 0, nothing elsewhere. A replica of one rank that runs out of memory
  // empties its cache and tries once more. Throws Error(kCapacity) when the memory does not suffice,
  // Error(kItem) for pictures that are no result, and what Pipeline::generate throws.
  std::vector<media::Artifact> generate(request::Requests batch,
                                        const pipeline::StepCallbacks& callbacks);
  BatchTimes times() const;  // of the last batch
  // Any thread. Throws what OutputFolder::write and media::encode throw. What it
  // returns has no seconds.
  jobs::Stored write(const request::Request& request, const media::Artifact& artifact) const;

  bool is_alone() const;         // no other rank draws the same batch
  bool leads() const;            // rank 0 of its replica
  bool is_device_alive() const;  // false once the device refuses all further work
  RankStats stats() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// "cpu", "cuda" (the device of this number) or "cuda:N". Throws Error(kUsage) for anything else.
c10::Device device_named(const std::string& name, int number);

}  // namespace atelier::cluster
