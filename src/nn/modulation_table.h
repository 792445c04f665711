// Linears whose input is known before the first step (timestep, pooled text, guidance): evaluated once for
// all steps.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "nn/manifest.h"
#include "nn/memory.h"
#include "nn/seams.h"

namespace atelier::weights {
class WeightStore;
}

namespace atelier::nn {

struct State;

// One table: a range of the channels of all tables side by side.
struct ModulationTable {
  int64_t begin = -1, size = 0;
  int index = -1;  // among the tables, in the order in which they were added
};

// All tables of the blocks that this rank built. Each rank of the stage keeps its share of the linears' rows;
// no step reads them.
class ModulationTables {
 public:
  ModulationTables(const weights::WeightStore& store, ShardedEval* sharded_eval, BlockMemory& memory,
                   at::TensorOptions options, std::shared_ptr<Manifest> manifest)
      : store_(&store),
        sharded_eval_(sharded_eval),
        memory_(&memory),
        options_(options),
        manifest_(std::move(manifest)) {}
  // A linear of the condition.
  ModulationTable add(const std::string& name, int64_t in, int64_t out);
  // What a linear that was added before gives, plus numbers of its own (adaLN-single: Chen et al.,
  // PixArt-alpha, arXiv 2310.00426). offset: as many numbers as that table is wide.
  ModulationTable add_offset(const ModulationTable& shared, const at::Tensor& offset);
  // The embedding itself, repeated, plus numbers of its own. offset [parts, width].
  ModulationTable add_offset_of_embedding(const at::Tensor& offset);
  // Reads this rank's rows, once, after the last add().
  void load();
  // condition [rows, B, in] -> [rows, B, all tables]; one gather. embedding [rows, B, width]: only for tables
  // that repeat it.
  at::Tensor evaluate(const at::Tensor& condition, const at::Tensor& embedding = {}) const;
  int64_t total() const { return total_; }

 private:
  struct One {
    std::string name;  // of the linear; empty: an offset
    int64_t in = 0, out = 0;
    int shared = -1;    // table that the offset is added to; -1: the embedding
    at::Tensor offset;  // [out]
  };
  ModulationTable added(One one);
  at::Tensor linears(const at::Tensor& condition) const;
  void read(at::Tensor& part, const std::string& name, at::IntArrayRef full, Range rows);

  const weights::WeightStore* store_;
  ShardedEval* sharded_eval_;
  BlockMemory* memory_;
  at::TensorOptions options_;
  std::shared_ptr<Manifest> manifest_;
  std::vector<One> all_;
  int64_t total_ = 0, linear_rows_ = 0, in_ = 0;
  at::Tensor weight_, bias_;  // [rows held, in], [rows held]
};

// Shift, scale and gate of one half of a block, views [B, C] of the current step's row.
struct Modulation {
  at::Tensor shift, scale, gate;
};
struct Modulations {
  Modulation attention, mlp;
};

// `parts` equal pieces of the table's current row, each [B, C].
std::vector<at::Tensor> chunks(const ModulationTable&, const State&, int parts);
// The same of another row of all tables, [B, all tables].
std::vector<at::Tensor> chunks(const ModulationTable&, const at::Tensor& row, int parts);
// Order of AdaLayerNormZero: shift, scale, gate, then the same for the MLP where the table has six parts.
Modulations modulations(const ModulationTable&, const State&, int64_t width);
Modulations modulations(const ModulationTable&, const at::Tensor& row, int64_t width);

}  // namespace atelier::nn
