// Ulysses by plain stores into the peers' memory, where ranks can reach each other's: the kernel that makes q, k and v
// puts them where each peer's attention reads them, and a rank puts its heads of the output where the others' closing
// linears do. Two barriers per attention, which a recorded graph holds; nothing is sent, nothing is joined afterwards.
#pragma once
#include <memory>
#include <vector>

#include "comm/comm.h"
#include "nn/attention.h"
#include "parallel/ulysses.h"

namespace atelier::parallel {

// Why one window serves every attention: what a rank stores for the next one, it stores behind the barrier that its
// peers reach after they have read what it stored for this one. So only one exchange may be in flight; others, and all
// where there are no windows, are `otherwise`'s, on every rank alike. Same numbers in the same order as that: same bits.
class UlyssesStores : public nn::SequenceExchange {
 public:
  enum class Where : uint8_t { kCuda, kEverywhere };  // tensors on other devices are `otherwise`'s
  UlyssesStores(Ulysses& otherwise, comm::Comm& group, int first, Where where = Where::kCuda)
      : otherwise_(otherwise), group_(group), first_(first), where_(where) {}

  nn::ExchangeBuffers buffers(const nn::CallContext&, const nn::AttentionLayer&,
                              std::span<const nn::Projected>) override;
  void launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  nn::Qkv wait(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  // A view of the window: it holds until the next exchange.
  at::Tensor scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&,
                          at::Tensor out) override;
  bool ran() const { return ran_; }

 private:
  // With room for so many bytes, the same on all ranks; null: there are none. Windows are kept: graphs hold their
  // addresses.
  comm::Window* window(int64_t bytes);

  Ulysses& otherwise_;
  comm::Comm& group_;
  int first_;
  Where where_;
  std::vector<std::unique_ptr<comm::Window>> windows_;
  bool has_none_ = false, is_busy_ = false, ran_ = false;
};

}  // namespace atelier::parallel
