// Shares of dimension 0, and their gather.
#include "parallel/sharded_eval.h"

#include <ATen/ops/empty.h>

#include <vector>

#include "base/check.h"

namespace atelier::parallel {

Range GroupShardedEval::mine(int64_t total) const {
  return Partition{total, group_.size()}[group_.rank()];
}

at::Tensor GroupShardedEval::gather(const at::Tensor& part, int64_t total) {
  ENSURE(part.size(0) == mine(total).size);
  auto sizes = part.sizes().vec();
  int64_t row = 1;
  for (size_t i = 1; i < sizes.size(); ++i) row *= sizes[i];
  std::vector<int64_t> split;
  for (int r = 0; r < group_.size(); ++r) split.push_back(Partition{total, group_.size()}[r].size * row);
  sizes[0] = total;
  auto whole = at::empty(sizes, part.options());
  group_.all_gather(whole, part.contiguous(), split).wait();
  return whole;
}

}  // namespace atelier::parallel
