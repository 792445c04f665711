// Blocks whose weights have their home elsewhere: two whole blocks are in place at a time, the next
// one on its way while the current one runs. Where home is: host memory (Offloaded), the shares of
// several ranks (parallel::Sharded).
#pragma once
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <array>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "nn/memory.h"

namespace atelier::nn {

// How many bytes each block takes: for a first build on device meta. Its tensors have no memory.
class BlockSizes : public BlockMemory {
 public:
  Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  const std::map<int, int64_t>& bytes() const { return bytes_; }

 private:
  std::map<int, int64_t> bytes_;
};

// The blocks are built one after another, in any order; afterwards their weights are valid only from before()
// of their block to before() of the next. What is not part of a block is resident.
class StreamedMemory : public BlockMemory {
 public:
  Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  void finish(int block) override;
  void reopen(int block) override;
  Range held(int block, const at::Tensor& weight) const override;
  void will_run(std::span<const int> blocks) override;
  void before(int block) override;
  void abandon() noexcept override;

  int64_t bytes_in_place() const;  // of the two blocks
  int64_t bytes_at_home() const;

 protected:
  static constexpr int kSlots = 2;
  struct Share {
    int rank = 0, ranks = 1;
  };
  // bytes: of a BlockSizes that saw the same build. Each block's bytes are cut into equal shares, the last
  // one's end may be unused; this object keeps its own, at `home`.
  StreamedMemory(const std::map<int, int64_t>& bytes, c10::Device device, const at::TensorOptions& home,
                 Share share);

  // Begins to fill a block's place, [bytes of all shares]; what is queued on the current stream may
  // still use it.
  virtual void fetch(int slot, at::Tensor place, const at::Tensor& home) = 0;
  // Of the slot's last fetch, if it has not been waited for: for what is queued on the current stream
  // from now on.
  virtual void wait(int slot) = 0;
  virtual void forget(int slot) noexcept = 0;  // instead of waiting

 private:
  struct Block {
    int slot = 0;
    at::Tensor home;  // [bytes of a share]
  };
  struct BlockBuffer {
    at::Tensor memory;  // of the largest block that uses it
    int holds = -1;     // block
  };
  at::Tensor place(const Block& block) const;
  Range share(const Block& block) const;  // bytes
  void bring(int block);

  Share share_;
  std::map<int, Block> blocks_;
  std::array<BlockBuffer, kSlots> slots_;
  int building_ = -1;
  int64_t taken_ = 0;  // bytes of the block being built
  std::vector<int> order_;
  size_t next_ = 0;
};

// Home is host memory, pinned for a CUDA device. Copies run on a stream of their own. The tables come before
// they are evaluated and leave when the blocks run.
class Offloaded : public StreamedMemory {
 public:
  Offloaded(const std::map<int, int64_t>& bytes, c10::Device device);
  ~Offloaded() override;
  Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  void finish(int block) override;
  void reopen(int block) override;
  void will_run(std::span<const int> blocks) override;
  void release() override;

 private:
  void fetch(int slot, at::Tensor place, const at::Tensor& home) override;
  void wait(int slot) override;
  void forget(int slot) noexcept override { arrived_[static_cast<size_t>(slot)].reset(); }

  c10::Device device_;
  std::optional<c10::Stream> copies_;  // CUDA
  std::array<std::optional<c10::Event>, kSlots> arrived_;
  Parked tables_;
};

}  // namespace atelier::nn
