// K/V gather: queries stay with their tokens, keys and values of all ranks of a group come to each of them.
// One attention of the rank's queries over all keys follows: exact, nothing to merge, no way back, any number
// of heads. Context parallelism of Llama 3 (arXiv 2407.21783, 3.3.2).
#pragma once
#include <vector>

#include "comm/comm.h"
#include "nn/attention.h"

namespace atelier::parallel {

// Stands around what brings neighbours together first (Ulysses), or nobody. A rank sends the keys and values
// that it then has to each other rank of its group, as two gathers: values first, which need neither norm nor
// rope, then keys. Without Ulysses the values are on their way while queries and keys are still being
// normalised and rotated (but for values in e4m3, which are made with the keys), and both while the model
// does what needs no attention. Each arrives where attention reads it; only several streams (begin_in_order)
// need a copy into the order of one rank. Calls whose streams are on one rank go to `inner` as they are.
class KvGather : public nn::SequenceExchange {
 public:
  // group: its ranks in the order of their tokens. inner: brings together the tokens of `together`
  // neighbouring sequence ranks, with 1 only this rank's own; first: the first sequence rank whose tokens
  // the group holds.
  KvGather(comm::Comm& group, int first, nn::SequenceExchange& inner, int together)
      : group_(group), first_(first), inner_(inner), together_(together) {}
  nn::ExchangeBuffers buffers(const nn::CallContext&, const nn::AttentionLayer&,
                              std::span<const nn::Projected>) override;
  void launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  // kv: [tokens of all, B, 2, h, d], of which all keys lie before all values.
  nn::Qkv wait(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  at::Tensor scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&,
                          at::Tensor out) override;
  bool ran() const { return ran_; }

 private:
  struct GatherFlight;
  // Begins one of the two gathers: of [tokens here, B, h, d].
  void gather(GatherFlight&, int which, const at::Tensor& mine);
  // [2, tokens, B, h, d], in the order of the ranks -> in the order of one rank.
  at::Tensor in_order(const nn::CallContext&, const nn::AttentionLayer&, const at::Tensor& arrived) const;

  comm::Comm& group_;
  int first_;
  nn::SequenceExchange& inner_;
  int together_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
