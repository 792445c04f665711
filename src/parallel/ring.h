// Ring attention: keys and values go round while each rank attends to the block in hand.
// Liu et al. (arXiv 2310.01889); blocks are merged by their log-sum-exp.
#pragma once
#include "comm/comm.h"
#include "nn/attention.h"

namespace atelier::parallel {

// Adds a block's result to what was gathered so far: weights exp(lse - lse of both), in the type of
// `all.out`, which is float (or double) and is changed in place. lse -inf: a block without keys.
void merge_(nn::AttentionOutput& all, const nn::AttentionOutput& block);

class Ring : public nn::AttentionOp {
 public:
  // group: the ring's ranks in order; each call's held.first must be rank * held.count. A call whose streams
  // are on one rank does not go round.
  Ring(comm::Comm& group, nn::AttentionOp& next) : group_(group), next_(next) {}
  nn::AttentionOutput run(const nn::CallContext&, const nn::AttentionLayer&, nn::KvExtent,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse) override;
  bool ran() const { return ran_; }

 private:
  comm::Comm& group_;
  nn::AttentionOp& next_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
