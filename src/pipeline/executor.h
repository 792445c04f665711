// One rank's denoising loop: runs its column of the schedule, leg by leg, patch by patch.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <vector>

#include "pipeline/denoise.h"
#include "pipeline/graph_cache.h"
#include "pipeline/buffers.h"
#include "models/family.h"
#include "nn/model.h"
#include "parallel/parallel_context.h"

namespace atelier::pipeline {

// Brings a block's weights to where the block expects them before it runs.
class BlockFetcher {
 public:
  virtual ~BlockFetcher() = default;
  virtual void start(std::span<const int> blocks) = 0;  // these run next, in this order
  virtual void before(int block) = 0;
};

class Executor {
 public:
  // The model holds this rank's legs of the route. fetcher: null where all weights are resident.
  Executor(const models::Family& family, nn::Model& model, parallel::Assembly& assembly,
           std::span<const plan::Leg> route, at::TensorOptions options, GraphMode graphs,
           BlockFetcher* fetcher);

  // Whole latents after the last step, [N, B, c], float: on the ranks of the first stage, and on every rank
  // of the replica if all decode; undefined elsewhere.
  at::Tensor denoise(const Denoise& work, const Watch& watch);
  int graphs() const { return graphs_.captured(); }

 private:
  int stage() const;
  bool starts() const { return route_.front().stage == stage(); }
  void prepare(const Denoise& work, const Watch& watch);
  void perform(const plan::Op& op, const Denoise& work, const Watch& watch);
  void run(const plan::Op& op, const Watch& watch);
  void run_blocks(Lane& lane, size_t branch, int leg, int patch);
  void send(const plan::Op& op);
  void receive(const plan::Op& op);
  void sample(const plan::Op& op, const Denoise& work, const Watch& watch);
  at::Tensor guided(const plan::Op& op, const Denoise& work);
  at::Tensor gather(const Denoise& work);

  const models::Family& family_;
  nn::Model& model_;
  parallel::Assembly& assembly_;
  std::vector<plan::Leg> route_;
  at::TensorOptions options_;
  BlockFetcher* fetcher_;
  Lanes lanes_;
  std::vector<comm::Work> sends_;
  Graphs graphs_;
};

}  // namespace atelier::pipeline
