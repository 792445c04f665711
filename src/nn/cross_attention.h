// Attention to a prompt whose keys and values are made once per request.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "nn/attention.h"
#include "nn/state.h"

namespace atelier::nn {

// Every rank holds the whole prompt, so queries stay with their tokens: sequence parallelism and PipeFusion
// send nothing for it. Tensor parallelism cuts the heads.
class CrossAttention {
 public:
  CrossAttention() = default;
  // id: of this attention within the model. heads: held here, after the tensor cut.
  CrossAttention(int id, Dim heads) : id_(id), heads_(heads) {}

  // In Model::begin, once per request and branch: k and v of `prompt` [T, B, heads held, d], with their norm.
  // lengths: the first keys that count, one number per sample; empty: all count.
  void begin(RequestContext& context, const Projected& prompt, std::span<const int64_t> lengths) const;
  // q of `tokens` [n, B, heads held, d], with its norm and rope -> [n, B, heads held * d].
  at::Tensor operator()(const State& s, const Projected& tokens) const;

 private:
  int id_ = -1;
  Dim heads_;
};

}  // namespace atelier::nn
