// Block weights cut over the ranks of a sequence group: each rank reads and keeps its share of every block,
// and two whole blocks are there at a time. Zhao et al., PyTorch FSDP (arXiv 2304.11277).
#pragma once
#include <array>
#include <map>

#include "comm/comm.h"
#include "nn/streamed_memory.h"

namespace atelier::parallel {

class Sharded : public nn::StreamedMemory {
 public:
  // group: the ranks that share; all of them build the same blocks. bytes: of a BlockSizes that saw the same
  // build.
  Sharded(comm::Comm& group, const std::map<int, int64_t>& bytes, c10::Device device);

 private:
  void fetch(int slot, at::Tensor place, const at::Tensor& home) override;
  void wait(int slot) override { gathers_[static_cast<size_t>(slot)].wait(); }
  void forget(int slot) noexcept override { gathers_[static_cast<size_t>(slot)].forget(); }

  comm::Comm& group_;
  std::array<comm::Work, kSlots> gathers_;
};

}  // namespace atelier::parallel
