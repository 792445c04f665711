// Tensor parallelism: the layers hold slices (the builder cuts them), and this sum closes each pair.
// Shoeybi et al., Megatron-LM (arXiv 1909.08053).
#pragma once
#include "comm/comm.h"
#include "nn/seams.h"

namespace atelier::parallel {

class CommReducer : public nn::Reducer {
 public:
  explicit CommReducer(comm::Comm& group) : group_(group) {}
  void sum(at::Tensor& value) override;
  bool holds_all() const override { return holds_all_; }
  void hold_all(bool value) { holds_all_ = value; }
  bool ran() const { return ran_; }

 private:
  comm::Comm& group_;
  bool holds_all_ = false;
  bool ran_ = false;
};

}  // namespace atelier::parallel
