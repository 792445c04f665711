// Tokens to heads and back: each rank attends for its heads over the tokens of all ranks of its group.
// Jacobs et al., DeepSpeed Ulysses (arXiv 2309.14509), with uneven heads and tokens.
#pragma once
#include <vector>

#include "comm/comm.h"
#include "nn/attention.h"

namespace atelier::parallel {

// Tokens of these streams that each of `count` sequence ranks from `first` holds in this call.
std::vector<int64_t> tokens_of_ranks(const nn::CallContext&, std::span<const int> streams, int first,
                                     int count);
// Whether a stream is cut into patches, of which a call may hold one.
bool has_patches(const nn::CallContext&);
// Where this rank's keys of each stream of the layer begin among the keys of all these ranks: in the order of
// one rank, stream by stream. Attention then adds up in the same order, and comes out the same to the last
// bit. Patches stay as they are, rank by rank, as stale keys are kept.
std::vector<int64_t> begin_in_order(const nn::CallContext&, const nn::AttentionLayer&, int first, int count,
                                    int rank);
// Where each stream of the layer lies in the projections of sequence rank `rank`: one may hold several
// streams, which lie apart among the keys of all ranks.
std::vector<nn::ProjectionPiece> pieces_of_streams(const nn::CallContext&, const nn::AttentionLayer&,
                                                   int rank, std::span<const nn::Projected>);
// One behind the other; e4m3 as bytes, which can be joined on every device.
at::Tensor joined(const std::vector<at::Tensor>& parts, int64_t dim);

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
  // Keys and values per rank -> pieces in the order of begin_in_order.
  std::vector<at::Tensor> in_order(const nn::CallContext&, const nn::AttentionLayer&,
                                   const std::vector<at::Tensor>& per_rank) const;

  comm::Comm& group_;
  int first_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
