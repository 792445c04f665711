// Everything parallel that a built model can reach, as interfaces that parallel/ implements. One GPU runs
// without it.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "base/partition.h"

namespace atelier::nn {

class Activation;
class AttentionOp;
class SequenceExchange;
class Weight;

// Sums a tensor over ranks, in place.
class Reducer {
 public:
  virtual ~Reducer() = default;
  virtual void sum(at::Tensor& value) = 0;
  // Is there nothing to add, because this rank holds all of what is computed now?
  virtual bool holds_all() const { return false; }
  // The sum of all ranks' products x W^T; the segments of x fill W's columns held here, in order. The
  // product, then its sum, unless a strategy can do both at a time.
  virtual at::Tensor sum_of_product(std::span<const Activation> x, const Weight& w);
};

// Rows of a picture, [B, C, rows, W]: adds `above` and `below` rows of the neighbours, zeros at the picture's
// edges.
class RowHalo {
 public:
  virtual ~RowHalo() = default;
  virtual at::Tensor pad(const at::Tensor& x, int64_t above, int64_t below) = 0;
  // Does this rank hold all rows of what is computed now?
  virtual bool holds_all() const { return false; }
};
// Where other ranks hold a part of what is computed now; else null.
template <class Seam>
Seam* with_others(Seam* seam) {
  return seam && !seam->holds_all() ? seam : nullptr;
}

// Work that would be equal on all ranks of a stage: each does its share of dimension 0, one gather makes it
// whole.
class ShardedEval {
 public:
  virtual ~ShardedEval() = default;
  virtual Range mine(int64_t total) const = 0;
  virtual at::Tensor gather(const at::Tensor& part, int64_t total) = 0;
};

struct Seams {
  SequenceExchange* exchange = nullptr;  // tokens <-> heads; never null once assembled
  AttentionOp* attention = nullptr;      // never null once assembled
  int tensor_rank = 0, tensor_size = 1;
  Reducer* features = nullptr;          // closes a feature region; null: one rank holds all features
  Reducer* positions = nullptr;         // group norm over rows held by several ranks
  RowHalo* rows = nullptr;              // convolutions
  ShardedEval* sharded_eval = nullptr;  // tables
};

}  // namespace atelier::nn
