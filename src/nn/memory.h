// Where weights live. The builder asks for each tensor; blocks may be laid out one contiguous arena each.
#pragma once
#include <ATen/core/Tensor.h>

namespace atelier::nn {

class Memory {
 public:
  static constexpr int kResident = -1;  // not part of a block
  virtual ~Memory() = default;
  // An uninitialised contiguous tensor for a weight of this block.
  virtual at::Tensor take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) = 0;
  // All weights of this block have been read.
  virtual void finish(int block) = 0;
};

// One allocation per weight.
class PlainMemory : public Memory {
 public:
  at::Tensor take(int block, at::IntArrayRef sizes, const at::TensorOptions& options) override;
  void finish(int) override {}
};

}  // namespace atelier::nn
