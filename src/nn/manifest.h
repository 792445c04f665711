// What a rank's model holds of a checkpoint.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "base/partition.h"

namespace atelier::weights {
class WeightStore;
}

namespace atelier::nn {

// One tensor, and which slice of which canonical tensor was read into it: other weights of the same model can
// be read into the same memory.
struct HeldWeight {
  at::Tensor tensor;
  std::string name;  // canonical
  std::vector<int64_t> full;
  std::vector<Range> rows, cols;  // of dim 0 and dim 1; empty: all
  int block = -1;                 // of the block loop, or a BlockMemory constant
  at::Tensor scale;               // of a tensor of e4m3 rows: rounded as it is read
};
using Manifest = std::vector<HeldWeight>;

// What these weights have for it, into its memory: whole, or the rows `wanted` of those it holds.
void read(const weights::WeightStore& store, const HeldWeight& held);
void read_rows(const weights::WeightStore& store, const HeldWeight& held, Range wanted);

}  // namespace atelier::nn
