// One rank's denoising loop: runs its column of the schedule, chunk by chunk, patch by patch.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/family.h"
#include "nn/model.h"
#include "parallel/parallel_context.h"
#include "parallel/tensor.h"
#include "pipeline/buffers.h"
#include "pipeline/denoise.h"
#include "pipeline/graph_cache.h"
#include "pipeline/step_timer.h"

namespace atelier::pipeline {

struct ExecutorOptions {
  at::TensorOptions tensors;              // element type and device of the denoisers
  std::unique_ptr<GraphBackend> graphs;   // null: nothing is recorded
  bool joins_branches = false;            // both branches of guidance in one pass where they fit
  int64_t kept_bytes = int64_t{2} << 30;  // of the buffers and graphs of all shapes, see BufferCache
};

class Executor {
 public:
  // The experts hold this rank's chunks of the route.
  Executor(const Denoiser& denoiser, parallel::ParallelContext& parallel_context,
           std::span<const plan::ModelChunk> route, ExecutorOptions options);
  ~Executor();

  // Whole latents after the last step, [N, B, c], float: on the ranks of the first stage, and on every rank
  // of the replica if all decode; undefined elsewhere. Throws Error(kInterrupted) where callbacks.may_begin
  // ended it: on every rank, with nothing under way.
  at::Tensor denoise(const Denoise& work, const StepCallbacks& callbacks);
  bool joined_branches() const { return has_joined_; }
  // Of the last request's steps, by the device's clock; waits for it. From a stage's first operation of one
  // step to its first of the next, so that steps that overlap count once.
  std::vector<double> step_ms() const;
  // Samples that went through this rank's blocks since it was made: pictures x branches x steps, of whichever
  // part of the tokens it holds. Without those for which a step cache left blocks out.
  int64_t samples() const { return samples_; }
  // Of the last request, in all of its branches; zeros without a step cache.
  StepCacheCounts cache_counts() const { return cache_counts_; }
  int graphs() const { return graphs_.captured(); }
  size_t kept_shapes() const { return buffers_.size(); }

 private:
  struct Walk;      // one request on its way
  class Listening;  // inside of a denoiser
  int stage() const;
  bool starts() const { return route_.front().stage == stage(); }
  bool ends_with(int chunk) const { return chunk + 1 == static_cast<int>(route_.size()); }
  RequestBuffers make(const Denoise& work, int patches, bool together);
  void prepare(Walk& w);
  bool begin(Walk& w, std::span<const nn::Conditioning> held, size_t expert);
  void begin_blocks(const Denoiser::Expert& expert, std::span<const nn::Conditioning> held,
                    std::span<nn::RequestContext> contexts);
  void walk(Walk& w);
  void begin_step(Walk& w, int step);
  void end_step(Walk& w);
  bool is_previewed(const Walk& w, int step) const;
  void preview(Walk& w);
  void perform(const plan::Op& op, Walk& w);
  void run(const plan::Op& op, Walk& w);
  void count(const plan::Op& op, const Walk& w);
  void count(const Walk& w, size_t pass);
  void run_probed(const plan::Op& op, Walk& w, size_t branch);
  std::unique_ptr<Listening> listen(const plan::Op& op, const Walk& w, BranchBuffers& call) const;
  void record_output(const plan::Op& op, const Walk& w, const BranchBuffers& call) const;
  void run_chunk(const plan::Op& op, RequestBuffers& buffers, size_t branch, int expert);
  void run_blocks(const Denoiser::Expert& expert, const plan::ModelChunk& chunk, BranchBuffers& call);
  void run_cached(const plan::Op& op, Walk& w);
  void prepare_cache(Walk& w) const;
  void run_leading(const Walk& w, size_t pass, int expert);
  void run_rest(const Walk& w, size_t pass, int expert);
  void run_reused(const Walk& w, size_t pass, int expert);
  std::vector<std::vector<bool>> decide(const plan::Op& op, Walk& w);
  StepCacheCounts counted(const Walk& w) const;
  bool are_together(const Denoise& work, const StepCallbacks& callbacks) const;
  at::Tensor model_input(const RequestBuffers& buffers, int patch) const;
  std::string blocks_prefix(size_t expert) const;
  void record_input(const plan::Op& op, const Walk& w, const BranchBuffers& call) const;
  void send(const plan::Op& op, Walk& w);
  void receive(const plan::Op& op, Walk& w);
  void sample(const plan::Op& op, Walk& w);
  void record_sample(const plan::Op& op, Walk& w, const at::Tensor& prediction);
  at::Tensor guided(const plan::Op& op, Walk& w);
  at::Tensor gather(const Walk& w);

  const Denoiser denoiser_;
  parallel::ParallelContext& parallel_context_;
  std::vector<plan::ModelChunk> route_;
  at::TensorOptions options_;
  bool joins_branches_;
  bool has_joined_ = false;  // any request's branches
  GraphCache graphs_;
  BufferCache buffers_;
  int64_t samples_ = 0;
  StepCacheCounts cache_counts_;
  std::vector<comm::Work> sends_;  // under way: not of a walk, whose end must not wait for them when it fails
  std::optional<parallel::CommReducer> positions_;  // over the ranks that hold the other tokens
  std::unique_ptr<StepTimer> timer_;                // of the last request
};

}  // namespace atelier::pipeline
