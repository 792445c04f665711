// Tokens to heads and back: each rank attends for its heads over the tokens of all ranks of its group.
// Jacobs et al., DeepSpeed Ulysses (arXiv 2309.14509), with uneven heads and tokens.
#pragma once
#include <vector>

#include "comm/comm.h"
#include "nn/attention.h"

namespace atelier::parallel {

// One message per peer and direction: q, k and v travel together. Both ends pay one pass over what arrived,
// which joins the peers' parts.
class Ulysses : public nn::Exchange {
 public:
  // group: at most kernels::kMaxTargets ranks with neighbouring sequence ranks, of which the first is
  // `first`.
  Ulysses(comm::Comm& group, int first) : group_(group), first_(first) {}
  nn::Inbox inbox(const nn::Frame&, const nn::Site&, std::span<const nn::Projected>) override;
  void depart(const nn::Frame&, const nn::Site&, nn::Inbox&) override;
  nn::Qkv arrive(const nn::Frame&, const nn::Site&, nn::Inbox&) override;
  at::Tensor back(const nn::Frame&, const nn::Site&, nn::Inbox&, at::Tensor out) override;
  bool ran() const { return ran_; }

 private:
  // Tokens of these streams that each rank of the group holds in this call.
  std::vector<int64_t> tokens(const nn::Frame&, std::span<const int> streams) const;
  // Keys and values per rank -> in the order of one rank, stream by stream: attention then adds up in the
  // same order, and comes out the same to the last bit. Stale keys are kept rank by rank, so patches stay as
  // they are.
  std::vector<at::Tensor> in_order(const nn::Frame&, const nn::Site&,
                                   const std::vector<at::Tensor>& per_rank) const;

  comm::Comm& group_;
  int first_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
