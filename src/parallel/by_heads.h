// Attention layers that differ in their number of heads, as those of a UNet do: Ulysses hands heads out where
// a layer has at least one for each rank; elsewhere tokens stay and keys and values go round all ranks.
#pragma once
#include "nn/attention.h"

namespace atelier::parallel {

class ExchangeByHeads : public nn::SequenceExchange {
 public:
  // many: for layers with at least `ranks` heads; few: for the others.
  ExchangeByHeads(nn::SequenceExchange& many, nn::SequenceExchange& few, int ranks)
      : many_(many), few_(few), ranks_(ranks) {}
  nn::ExchangeBuffers buffers(const nn::CallContext&, const nn::AttentionLayer&,
                              std::span<const nn::Projected>) override;
  void launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  nn::Qkv wait(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  at::Tensor scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&,
                          at::Tensor out) override;

 private:
  nn::SequenceExchange& of(const nn::AttentionLayer& layer) {
    return layer.heads.count >= ranks_ ? many_ : few_;
  }
  nn::SequenceExchange &many_, &few_;
  int ranks_;
};

// What follows: `several` where an exchange has brought the tokens of several ranks together, `one`
// where they stayed.
class AttentionByHeads : public nn::AttentionOp {
 public:
  AttentionByHeads(nn::AttentionOp& several, nn::AttentionOp& one) : several_(several), one_(one) {}
  nn::AttentionOutput run(const nn::CallContext&, const nn::AttentionLayer&, nn::KvExtent,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse) override;

 private:
  nn::AttentionOp &several_, &one_;
};

}  // namespace atelier::parallel
