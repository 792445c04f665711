// One rank's denoising loop: runs its column of the schedule, chunk by chunk, patch by patch.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <vector>

#include "models/family.h"
#include "nn/model.h"
#include "parallel/parallel_context.h"
#include "pipeline/buffers.h"
#include "pipeline/denoise.h"
#include "pipeline/graph_cache.h"

namespace atelier::pipeline {

class Executor {
 public:
  // The experts hold this rank's chunks of the route.
  Executor(const Denoiser& denoiser, parallel::ParallelContext& parallel_context,
           std::span<const plan::ModelChunk> route, at::TensorOptions options, GraphMode graphs);

  // Whole latents after the last step, [N, B, c], float: on the ranks of the first stage, and on every rank
  // of the replica if all decode; undefined elsewhere.
  at::Tensor denoise(const Denoise& work, const StepCallbacks& callbacks);
  int graphs() const { return graphs_.captured(); }

 private:
  int stage() const;
  bool starts() const { return route_.front().stage == stage(); }
  void prepare(const Denoise& work, const StepCallbacks& callbacks);
  void begin(const Denoise& work, const StepCallbacks& callbacks);
  void begin_blocks(std::span<const nn::Conditioning> held, std::span<nn::RequestContext> contexts);
  void perform(const plan::Op& op, const Denoise& work, const StepCallbacks& callbacks);
  void run(const plan::Op& op, const StepCallbacks& callbacks);
  void run_blocks(BranchBuffers& buffers, size_t branch, int chunk, int patch);
  void send(const plan::Op& op);
  void receive(const plan::Op& op);
  void sample(const plan::Op& op, const Denoise& work, const StepCallbacks& callbacks);
  at::Tensor guided(const plan::Op& op, const Denoise& work);
  at::Tensor gather(const Denoise& work);

  const Denoiser denoiser_;
  nn::Model& model_;
  parallel::ParallelContext& parallel_context_;
  std::vector<plan::ModelChunk> route_;
  at::TensorOptions options_;
  nn::BlockMemory& memory_;
  RequestBuffers buffers_;
  std::vector<comm::Work> sends_;
  GraphCache graphs_;
};

}  // namespace atelier::pipeline
