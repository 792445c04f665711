// Tokens to heads and back: each rank attends for its heads over the tokens of all ranks of its group.
// Jacobs et al., DeepSpeed Ulysses (arXiv 2309.14509), with uneven heads and tokens.
#pragma once
#include <vector>

#include "comm/comm.h"
#include "nn/attention.h"

namespace atelier::parallel {

// One message per peer and direction: q, k and v travel together. Both ends pay one pass over what arrived,
// which joins the peers' parts.
class Ulysses : public nn::SequenceExchange {
 public:
  // group: at most kernels::kMaxTargets ranks with neighbouring sequence ranks, of which the first is
  // `first`.
  Ulysses(comm::Comm& group, int first) : group_(group), first_(first) {}
  nn::ExchangeBuffers buffers(const nn::CallContext&, const nn::AttentionLayer&,
                              std::span<const nn::Projected>) override;
  void launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  nn::Qkv wait(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  at::Tensor scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&,
                          at::Tensor out) override;
  bool ran() const { return ran_; }

 private:
  // Tokens of these streams that each rank of the group holds in this call.
  std::vector<int64_t> tokens(const nn::CallContext&, std::span<const int> streams) const;
  // Keys and values per rank -> in the order of one rank, stream by stream: attention then adds up in the
  // same order, and comes out the same to the last bit. Stale keys are kept rank by rank, so patches stay as
  // they are.
  std::vector<at::Tensor> in_order(const nn::CallContext&, const nn::AttentionLayer&,
                                   const std::vector<at::Tensor>& per_rank) const;

  comm::Comm& group_;
  int first_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
