// Rows of one matrix to the several places where others go on with them.
#pragma once
#include <cstdint>

#include "kernels/types.h"

namespace atelier::kernels {

constexpr int kMaxRowTargets = 64;

// The next `rows` rows of the source, `stride` bytes from row to row there.
struct RowTarget {
  void* data = nullptr;
  int64_t rows = 0, stride = 0;
};

// from: rows of row_bytes bytes each, contiguous; as many as all targets take.
struct RowScatter {
  const void* from = nullptr;
  int64_t row_bytes = 0;
  RowTarget targets[kMaxRowTargets] = {};
  int target_count = 0;
};

// Any memory that can be stored to will do, peers' too. Strides are at least row_bytes, and no
// two rows overlap.
void scatter_rows(LaunchTarget where, const RowScatter& scatter);

namespace cuda {
void scatter_rows(void* stream, const RowScatter& scatter);
}

}  // namespace atelier::kernels
