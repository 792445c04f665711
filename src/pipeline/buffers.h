// The memory of one rank for one shape of request: buffers per branch and patch, with addresses that stay,
// and the few shapes that are kept.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "comm/comm.h"
#include "models/family.h"
#include "nn/call_context.h"
#include "nn/model.h"
#include "nn/state.h"
#include "parallel/parallel_context.h"
#include "pipeline/denoise.h"
#include "pipeline/graph_cache.h"
#include "pipeline/step_cache.h"

namespace atelier::pipeline {

// One pass of one patch, or of the whole sequence, on this rank.
struct BranchBuffers {
  nn::CallContext call;
  nn::State state;
  at::Tensor prediction;  // of the last chunk, or received from its stage
  // By chunk: recorded graphs write and read here, so the addresses stay. An outbox may be the memory of the
  // inbox: a patch comes again only when it was sampled, so sent and received.
  std::vector<at::Tensor> inbox;     // hidden state from the stage before; worked on in place
  std::vector<at::Tensor> outbox;    // hidden state for the chunk behind
  std::vector<comm::Work> incoming;  // receives under way; one more, of the prediction
  StepCacheBuffers cache;            // of the whole sequence; empty before a request has a step cache
};

struct RequestBuffers {
  int id = 0;  // of the graphs and of the strategies' caches that belong to these buffers
  int patches = 1;
  // The branches that each forward pass of this rank computes: one, or both side by side in the batch.
  std::vector<std::vector<int>> passes;
  std::vector<std::vector<nn::RequestContext>> contexts;  // [pass][expert]
  std::vector<std::vector<BranchBuffers>> by_pass;        // [pass][0: whole, 1 + patch]
  nn::CallContext whole;                                  // the run's layouts
  int latent_stream = 0;                                  // its place among the streams
  std::vector<models::StreamSpec::StreamKind> kinds;      // of the streams
  at::Tensor latents;                                     // tokens held here, patch after patch, float
  GivenTokens given;                                      // the same tokens
  std::vector<Range> rows;                                // of each patch within latents
  std::vector<int64_t> patch_tokens;                      // of each patch, on all ranks
  at::Tensor step;                                        // int64 [1], on the device
  at::Tensor input_divisors;  // by step, like latents; undefined where no step scales its input

  BranchBuffers& at(size_t pass, int patch) { return by_pass[pass][static_cast<size_t>(patch) + 1]; }
  const nn::Layout& latent_layout() const { return whole.streams[static_cast<size_t>(latent_stream)]; }
  // This patch's latents (patch -1: all).
  at::Tensor latents_of(int patch) const;
  GivenTokens given_of(int patch) const;
  // Takes the values of another request into the memory that is there. True where memory is new.
  bool assign_given_(const GivenTokens& fresh);
  int64_t bytes() const;
};

// What decides about buffers. The number of steps does not: what is kept by step has room for more.
using BufferKey = std::vector<int64_t>;
BufferKey key_of(const Denoise& work, int patches, bool are_together);

// Whether both branches can be one batch: what they are conditioned on has the same sizes, what all samples
// share is equal.
bool fit_together(std::span<const nn::Conditioning> branches);

// Call contexts, coordinates and empty buffers; contexts come with each request. are_together: where this
// rank computes both branches, one pass does.
RequestBuffers make_buffers(const Denoiser& denoiser, const Denoise& work, int patches, bool are_together,
                            const parallel::ParallelContext& parallel_context, at::TensorOptions options);

// The tokens held here of what each pass of this rank is conditioned on.
std::vector<nn::Conditioning> held_of(const Denoise& work, const RequestBuffers& mine);
// Rows of a whole token-major tensor that these ranges name, one after another.
at::Tensor rows_of(const at::Tensor& whole, std::span<const Range> ranges);

// Every rank's rows of the latents in their places in `whole`, [N, B, c]; held: those of this rank; group:
// ring x Ulysses, null for one rank.
void gather_latents(at::Tensor& whole, const RequestBuffers& mine, const at::Tensor& held, comm::Comm* group);

// The buffers of the last few shapes. What was not used for the longest time goes first, and with it its
// graphs and what the strategies keep for it.
class BufferCache {
 public:
  // budget: bytes of all shapes together, with what their graphs and the strategies hold; the one in use
  // stays, however large it is.
  BufferCache(int64_t budget, GraphCache& graphs, parallel::ParallelContext& parallel_context)
      : budget_(budget), graphs_(graphs), parallel_context_(parallel_context) {}
  // Made by `make` unless they are kept; where memory does not suffice for that, others go until it does.
  RequestBuffers& get(const BufferKey& key, const std::function<RequestBuffers()>& make);
  void trim();   // to the budget: buffers grow while they are used, and are recorded on
  void clear();  // all of them
  size_t size() const { return kept_.size(); }

 private:
  struct KeptBuffers {
    BufferKey key;
    RequestBuffers buffers;
  };
  void drop_oldest();
  int64_t bytes() const;

  int64_t budget_;
  GraphCache& graphs_;
  parallel::ParallelContext& parallel_context_;
  std::list<KeptBuffers> kept_;  // most recently used first
  int next_id_ = 1;
};

}  // namespace atelier::pipeline
