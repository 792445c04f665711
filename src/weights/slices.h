// Where the elements of a slice of a canonical tensor lie in checkpoint files: pure arithmetic, and the copy
// out of the files. Torch-free; inside of the room.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/partition.h"
#include "weights/names.h"
#include "weights/tensor_file.h"

namespace atelier::weights {

// A tensor as a file holds it.
struct StoredTensor {
  const TensorFile* file = nullptr;
  const TensorEntry* entry = nullptr;  // null: the checkpoint lacks it
  const std::vector<float>* scales =
      nullptr;  // its numbers are multiplied by: one, or one for each row; null: by 1
  // What its elements are when they have been copied out: as stored, or float where they must be decoded.
  DType dtype() const;
};

// One part of a canonical tensor, found in a file.
struct CheckpointPiece {
  std::string name;  // in the checkpoint
  StoredTensor stored;
  Range rows;  // size 0: all
};

// Whether two shapes are of one matrix: dimensions of 1 at the end do not count (1x1
// convolutions are linears).
bool same_shape(std::span<const int64_t> a, std::span<const int64_t> b);

// The shape of a whole canonical tensor, or why its pieces do not make one.
struct Fit {
  std::vector<int64_t> shape;
  std::string why_not;  // empty if they do
};

struct Canonical {
  std::vector<CheckpointPiece> pieces;
  int axis = 0;
  bool is_transposed = false;  // of one piece
  bool is_complete() const;
  Fit fit() const;
};

// Some columns of consecutive rows of one stored tensor.
struct Strip {
  StoredTensor tensor;
  int64_t first = 0;     // element of the tensor that is the first row's first
  int64_t stride = 0;    // elements from row to row: the tensor's width
  int64_t column = 0;    // where they go in a row of the slice
  int64_t elements = 0;  // per row
};

// Consecutive rows of the slice that come from the same tensors.
struct Band {
  DType dtype = DType::kF32;  // of all its tensors, copied out
  int64_t first = 0;          // element of the slice
  int64_t elements = 0;       // rows * width
  int64_t width = 0;          // elements of a row of the slice
  std::vector<Strip> strips;
  // One run of elements of one tensor.
  bool is_plain() const;
};

// What of a canonical tensor is wanted: ranges of dim 0 and dim 1; empty: all.
struct Slice {
  std::span<const Range> rows, cols;
};

// Elements of the slice of a tensor with this shape. Ensures that the ranges lie inside.
int64_t count_elements(std::span<const int64_t> shape, const Slice& slice);
// Bands in the order of the slice, without empty ones.
std::vector<Band> plan(const Canonical& tensor, std::span<const int64_t> shape, const Slice& slice);
// Copies elements [begin, end) of the band (counted from its first) to `out`.
void copy_out(const Band& band, Range elements, std::byte* out);

}  // namespace atelier::weights
