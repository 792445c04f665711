// What flows through the blocks.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/rope.h"

namespace atelier::nn {

// Made once per request and branch by Model::begin. Owned by the engine, which may write new values in place.
struct RequestContext {
  at::Tensor tables;  // [steps, B, all tables]
  // [text tokens held here, B, C], embedded; undefined on stages that do not begin the sequence
  at::Tensor text;
  int64_t width = 0;  // C: channels of the hidden state
};

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
