// Block weights cut over the ranks of a sequence group: each rank keeps its share of every block, and two
// whole blocks at a time, the next one gathered while the current one runs. Zhao et al., PyTorch FSDP (arXiv
// 2304.11277).
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "comm/comm.h"
#include "nn/memory.h"

namespace atelier::parallel {

// How many bytes each block takes: for a first build on device meta. Its tensors have no memory.
class BlockSizes : public nn::Memory {
 public:
  at::Tensor take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  void finish(int) override {}
  const std::map<int, int64_t>& bytes() const { return bytes_; }

 private:
  std::map<int, int64_t> bytes_;
};

// The blocks are built one after another, in any order; afterwards their weights are valid only from before()
// of their block to before() of the next. What is not part of a block is resident.
class ShardedMemory : public nn::Memory {
 public:
  // group: the ranks that share; all of them build the same blocks. bytes: of a BlockSizes that saw the same
  // build.
  ShardedMemory(comm::Comm& group, const std::map<int, int64_t>& bytes, c10::Device device);
  at::Tensor take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  void finish(int block) override;

  // These blocks run next, in this order; begins to gather the first.
  void start(std::span<const int> blocks);
  // The block's weights are there (for what is queued on the current stream from now on); begins to gather
  // the next one into the place of the one before. To be called for each block of start(), in order.
  void before(int block);

  int64_t bytes() const;  // of shares and slots

 private:
  struct Block {
    int slot = 0;
    at::Tensor share;  // [bytes / ranks], the same for all ranks: the last bytes may be unused
  };
  struct GatherSlot {
    at::Tensor memory;  // of the largest block that uses it
    int holds = -1;     // block
    comm::Work gather;
  };
  at::Tensor arena(const Block& block) const;
  void fetch(int block);

  comm::Comm& group_;
  std::map<int, Block> blocks_;
  GatherSlot slots_[2];
  int building_ = -1;
  int64_t taken_ = 0;  // bytes of the block being built
  std::vector<int> order_;
  size_t next_ = 0;
};

}  // namespace atelier::parallel
