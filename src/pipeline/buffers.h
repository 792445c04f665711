// The buffers of one rank for one shape of request: BranchBuffers per branch and patch, with addresses that stay.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "nn/call_context.h"
#include "nn/model.h"
#include "nn/state.h"
#include "parallel/parallel_context.h"
#include "pipeline/denoise.h"

namespace atelier::pipeline {

// One branch of one patch, or of the whole sequence, on this rank.
struct BranchBuffers {
  nn::CallContext call;
  nn::State state;
  at::Tensor prediction;  // of the last chunk, or received from its stage
  // By chunk, and one more for the prediction: recorded graphs write and read here, so the addresses stay. An
  // outbox may be the memory of the inbox: a patch comes again only when it was sampled, so sent and
  // received.
  std::vector<at::Tensor> inbox;     // hidden state from the stage before; worked on in place
  std::vector<at::Tensor> outbox;    // hidden state for the chunk behind
  std::vector<comm::Work> incoming;  // receives under way
};

struct RequestBuffers {
  std::string shape;  // of the request that these buffers fit
  int patches = 1;
  std::vector<int> branches;                          // that this rank computes
  std::vector<nn::RequestContext> contexts;           // per own branch
  std::vector<std::vector<BranchBuffers>> by_branch;  // [own branch][0: whole, 1 + patch]
  nn::CallContext whole;                              // the run's layouts
  int latent_stream = 0;                              // its place among the streams
  at::Tensor latents;                                 // image tokens held here, patch after patch, float
  std::vector<Range> rows;                            // of each patch within latents
  at::Tensor step;                                    // int64 [1], on the device
  std::vector<std::unique_ptr<sampling::Sampler>> samplers;  // per patch

  BranchBuffers& at(size_t branch, int patch) { return by_branch[branch][static_cast<size_t>(patch + 1)]; }
  const nn::Layout& latent_layout() const { return whole.streams[static_cast<size_t>(latent_stream)]; }
  // This patch's latents (patch -1: all).
  at::Tensor latents_of(int patch) const;
};

// What a request needs that decides about buffers.
std::string shape_of(const Denoise& work, int patches);
// Call contexts, coordinates and empty buffers; contexts come with each request.
RequestBuffers make_buffers(const Denoiser& denoiser, const Denoise& work, int patches,
                            const parallel::ParallelContext& parallel_context, at::TensorOptions options);
// Rows of a whole token-major tensor that these ranges name, one after another.
at::Tensor rows_of(const at::Tensor& whole, std::span<const Range> ranges);

}  // namespace atelier::pipeline
