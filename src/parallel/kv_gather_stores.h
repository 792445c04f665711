// K/V gather where ranks can reach each other's memory. Where the model has something else to do meanwhile, a
// rank's keys and values go from the kernel that makes them to where it attends to them itself, and the copy
// engines bring them from there to the same place at every peer; where it has not, that kernel stores them at
// every peer itself. Nothing is packed, joined or sent back.
#pragma once
#include <memory>
#include <vector>

#include "comm/comm.h"
#include "parallel/kv_gather.h"
#include "parallel/windows.h"

namespace atelier::parallel {

// Two barriers an exchange: before the stores, by which all have attended to what the last exchange brought
// into this memory, and between stores or copies and attention. Exchanges that are under way at the same time
// have memory of their own.
class KvGatherStores : public nn::SequenceExchange {
 public:
  // messages: what takes over where peers' memory is out of reach. group and first as there; for ranks that
  // nobody brought together before (`together` is 1).
  KvGatherStores(comm::Comm& group, int first, KvGather& messages)
      : group_(group), first_(first), messages_(messages) {}
  nn::ExchangeBuffers buffers(const nn::CallContext&, const nn::AttentionLayer&,
                              std::span<const nn::Projected>) override;
  void launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  nn::Qkv wait(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  at::Tensor scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&,
                          at::Tensor out) override;
  bool ran() const { return ran_; }
  int64_t bytes() const;  // of this rank's memory that its peers can reach

 private:
  struct GatherStoresFlight;
  comm::Comm& group_;
  int first_;
  KvGather& messages_;
  std::vector<std::shared_ptr<Windows>> memory_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
