// The sum over the ranks of a group.
#include "parallel/tensor.h"

namespace atelier::parallel {

void CommReducer::sum(at::Tensor& value) {
  ran_ = true;
  auto dense = value.contiguous();  // the value itself where it is contiguous already
  group_.all_reduce(dense).wait();
  if (!dense.is_same(value)) value.copy_(dense);
}

}  // namespace atelier::parallel
