// Work that is equal on all ranks of a stage, done once: each rank its share, then one gather.
#pragma once
#include "comm/comm.h"
#include "nn/seams.h"

namespace atelier::parallel {

class GroupShardedEval : public nn::ShardedEval {
 public:
  explicit GroupShardedEval(comm::Comm& group) : group_(group) {}
  Range mine(int64_t total) const override;
  at::Tensor gather(const at::Tensor& part, int64_t total) override;

 private:
  comm::Comm& group_;
};

}  // namespace atelier::parallel
