// Where weights live. The builder asks for memory tensor by tensor; whoever runs the model says which blocks
// come next.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "base/partition.h"

namespace atelier::nn {

// One weight's memory, and which of its elements (counted flat) are read into it: all, or this rank's share.
struct Allocation {
  at::Tensor weight;
  Range held;
};

// Implemented by Resident, Parked and Offloaded here and by parallel::Sharded. Built and used by one thread.
class BlockMemory {
 public:
  static constexpr int kResident = -1;  // not part of a block: needed at any time
  static constexpr int kTables = -2;    // read once per request, by ModulationTables::evaluate

  virtual ~BlockMemory() = default;
  // Uninitialised, contiguous memory for a weight of this block.
  virtual Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) = 0;
  // Whether weights of blocks, too, are used in the memory that they are read into: its numbers may then be
  // laid out otherwise.
  virtual bool is_used_as_read() const { return false; }
  // All weights of this block have been read.
  virtual void finish(int block);
  // From here to finish() the block's weights are in place to be written over, at least the elements held
  // here; others may hold anything. Nothing runs meanwhile.
  virtual void reopen(int block);
  // Elements of a weight of this block (counted flat) that are kept here, as take() said.
  virtual Range held(int block, const at::Tensor& weight) const;
  // These blocks run next, in this order; none: parts outside of blocks do. Weights may begin to travel.
  virtual void will_run(std::span<const int> blocks);
  // The block's weights are in place for whatever is queued on the current stream from now on. To be called
  // for each block of will_run(), in order.
  virtual void before(int block);
  // The pass that will_run() began is gone (a CUDA graph that could not be recorded): nothing of it
  // is waited for.
  virtual void abandon() noexcept;
  // Nothing runs until the next will_run(): device memory may be given back.
  virtual void release();
};

// While it lives, a component is in place from end to end.
class InPlace {
 public:
  explicit InPlace(BlockMemory& memory) : memory_(memory) { memory_.will_run({}); }
  ~InPlace() { memory_.release(); }
  InPlace(const InPlace&) = delete;
  InPlace& operator=(const InPlace&) = delete;

 private:
  BlockMemory& memory_;
};

// One allocation per weight, in place for ever.
class Resident : public BlockMemory {
 public:
  bool is_used_as_read() const override { return true; }
  Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
};

// A whole component that moves to its device before it runs and leaves after release(): its home is host
// memory. The tensors stay the same; their addresses do not, so no CUDA graph may hold them.
class Parked : public BlockMemory {
 public:
  bool is_used_as_read() const override { return true; }
  Allocation take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  void will_run(std::span<const int> blocks) override;
  void reopen(int block) override;
  void release() override;
  int64_t bytes() const;  // on the device now

 private:
  struct ParkedWeight {
    at::Tensor weight, home;  // home: undefined before the first release()
  };
  std::vector<ParkedWeight> weights_;
  bool is_in_ = true, is_changed_ = false;  // changed: since home was written
};

}  // namespace atelier::nn
