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
  at::Tensor tables;                // [steps, B, all tables]
  std::vector<at::Tensor> streams;  // per joint stream: [tokens held here, B, C], embedded
  std::map<int, KeyValue> cross;    // by number of the cross attention
  int64_t width = 0;                // C: channels of the hidden state
  // [T, B, C], whole and embedded: of what blocks make their keys and values of; only until begin_block.
  at::Tensor prompt;

  // Takes the values of another request of the same shape into the memory of this one, which recorded graphs
  // read from.
  void assign_(const RequestContext& fresh);
};

// Copies into the memory that `to` has where the sizes agree; otherwise `to` gets memory that nobody else
// writes to.
void assign_stable_(at::Tensor& to, const at::Tensor& from);

struct State {
  at::Tensor x;  // [all tokens held here, B, C]: the streams one after another, so a hop is one message
  std::vector<int64_t> n;             // tokens per stream
  std::vector<at::Tensor> positions;  // per stream [n, axes] integer coordinates, on the CPU
  std::vector<Rope> ropes;            // made by Model::enter from the coordinates
  at::Tensor row;                     // [B, all tables]: the current step's row of RequestContext::tables
  const RequestContext* context = nullptr;
  std::vector<at::Tensor> skips;  // pushed by early blocks, popped by late ones

  // A view of one stream's tokens of x.
  at::Tensor stream(int i) const;
};

}  // namespace atelier::nn
