// Ulysses where ranks can store into each other's memory: every query, key and value goes from the kernel
// that makes it to the place where its owner attends to it, and attention's output, by one kernel that copies
// rows, to the place where its tokens go on. Nothing is packed or joined, so the bits are those of Ulysses.
#pragma once
#include <memory>
#include <vector>

#include "comm/comm.h"
#include "parallel/ulysses.h"
#include "parallel/windows.h"

namespace atelier::parallel {

// An exchange is two barriers: one between the stores and attention, one between the stores of its output and
// what reads that. The first also says that everybody has read what the last exchange brought back, the
// second that everybody has attended. So memory is used again without a third, also for other sizes, if what
// comes and what comes back never share any. What scatter_back returns must be read, by work on the same
// stream, before an exchange that begins after it is finished; exchanges that are under way at the same time
// have memory of their own.
class UlyssesStores : public nn::SequenceExchange {
 public:
  // collective: what takes over where peers' memory is out of reach. group and first as there.
  UlyssesStores(comm::Comm& group, int first, Ulysses& collective)
      : group_(group), first_(first), collective_(collective) {}
  nn::ExchangeBuffers buffers(const nn::CallContext&, const nn::AttentionLayer&,
                              std::span<const nn::Projected>) override;
  void launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  nn::Qkv wait(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&) override;
  at::Tensor scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers&,
                          at::Tensor out) override;
  bool ran() const { return ran_; }
  int64_t bytes() const;  // of this rank's memory that its peers can reach

 private:
  struct UlyssesStoresFlight;
  // Memory for one exchange at a time.
  struct Lane {
    Windows coming, returning;
  };
  void lay_pieces(const nn::CallContext&, const nn::AttentionLayer&, std::span<const nn::Projected>,
                  const UlyssesStoresFlight&, nn::ExchangeBuffers&) const;

  comm::Comm& group_;
  int first_;
  Ulysses& collective_;
  std::vector<std::shared_ptr<Lane>> lanes_;
  bool ran_ = false;
};

}  // namespace atelier::parallel
