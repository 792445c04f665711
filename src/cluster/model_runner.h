// The Runner of a real model.
#pragma once
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cluster/runner.h"

namespace atelier::cluster {

class ModelRunner : public Runner {
 public:
  // Makes the device current and loads this rank's part of the model. transport: null for a run of one rank;
  // all ranks construct theirs at the same time. Throws Error(kCheckpoint, kUsage, kCapacity, kPeer).
  ModelRunner(const pipeline::EngineConfig& config, c10::Device device, comm::Transport* transport);
  ~ModelRunner() override;

  // A replica of one rank that runs out of memory empties its cache and tries once more; of several ranks the
  // others wait then, and all start again. Error(kCapacity): the memory does not suffice.
  std::vector<media::Artifact> generate(request::Requests requests,
                                        const pipeline::StepCallbacks& callbacks) override;
  std::vector<int64_t> answer(const TensorCall& call, const pipeline::StepCallbacks& callbacks) override;
  bool is_device_alive() const override;
  RankStats stats() const override;
  BatchTimes times() const override;

 private:
  std::string under_cap() const;  // for messages; empty where memory is not capped
  double fraction_ = 1;           // of a GPU's memory
  template <class Work, class Advice>
  auto with_room(const Work& work, const Advice& advice);
  void settle();
  int settles_after_ = 0;  // batches; 0: never
  void tell_of_kernels();  // once, what is computed otherwise than it was to be
  bool has_told_ = false;
  bool leads() const;  // rank 0 of the replica
  struct LoadedModel;
  std::unique_ptr<LoadedModel> parts_;
};

// "cpu", "cuda" (the device of this number) or "cuda:N". Throws Error(kUsage) for anything else.
c10::Device device_named(const std::string& name, int number);

}  // namespace atelier::cluster
