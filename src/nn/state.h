// What flows through the blocks, and what a request made of its prompt for them.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "nn/rope.h"

namespace atelier::nn {

// Keys and values of one cross attention: of the whole prompt, on every rank.
struct KeyValue {
  at::Tensor kv;    // [T, B, 2, heads held, d]
  at::Tensor mask;  // [B, 1, 1, T], added to the scores: 0, or -inf for padding; undefined: all keys count
};

// Made once per request and branch by Model::begin.
struct RequestContext {
  at::Tensor tables;  // [steps, B, all tables]
  at::Tensor given;   // [B, all tables]: of latents that are given, at time 0; undefined: all are denoised
  at::Tensor control_scales;        // [hints], of what a control stream adds; undefined: there is none
  std::vector<at::Tensor> streams;  // per joint stream: [tokens held here, B, C], embedded
  std::map<int, KeyValue> cross;    // by number of the cross attention
  int64_t width = 0;                // C: channels of the hidden state
  // [T, B, C], whole and embedded: of what blocks make their keys and values of; only until begin_block.
  at::Tensor prompt;

  // Takes the values of another request of the same shape into the memory of this one, which recorded graphs
  // read from; there may be more or fewer steps. True where memory is new: graphs that read the old one are
  // worthless then.
  bool assign_(const RequestContext& fresh);
};

// Copies into the memory that `to` has where the sizes agree; otherwise `to` gets memory that nobody else
// writes to.
// True where it is new.
bool assign_stable_(at::Tensor& to, const at::Tensor& from);
// The same for values by step, with room for more steps than there are.
bool assign_by_step_(at::Tensor& to, const at::Tensor& from);

struct State {
  at::Tensor x;  // [all tokens held here, B, C]: the streams one after another, so a hop is one message
  std::vector<int64_t> n;             // tokens per stream
  std::vector<at::Tensor> positions;  // per stream [n, axes] integer coordinates, on the CPU
  std::vector<Rope> ropes;            // made by Model::enter from the coordinates
  // [latent tokens held, 1, C]: made by Model::enter of models that add them to their tokens.
  at::Tensor position_embeddings;
  at::Tensor row;  // [B, all tables]: the current step's row of RequestContext::tables
  const RequestContext* context = nullptr;
  int64_t first_frame = 0;  // tokens held here of a video's first frame: those in front
  // [latent tokens held, B, c]: latents that steer what is denoised, cut alike; undefined: none.
  at::Tensor control;
  // Long skips, by the block that left them. In memory that stays: a recorded graph reads and writes it
  // whatever ran since.
  std::map<int, at::Tensor> skips;

  void keep_skip(int block, const at::Tensor& value);
  const at::Tensor& skip(int block) const;

  // A view of one stream's tokens of x.
  at::Tensor stream(int i) const;
};

}  // namespace atelier::nn
