// Seams 2 and 3: constructing a layer loads this rank's slice of it. A model says how a layer may be cut by
// the word it builds it with: linear (whole), expand (opens a feature region), contract (closes it), conv2d
// (mixes positions).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/partition.h"
#include "nn/attention.h"
#include "nn/conv.h"
#include "nn/cross_attention.h"
#include "nn/linear.h"
#include "nn/manifest.h"
#include "nn/memory.h"
#include "nn/modulation_table.h"
#include "nn/norm.h"
#include "nn/seams.h"
#include "nn/video.h"

namespace atelier::weights {
class WeightStore;
}

namespace atelier::nn {

enum class Bias { kYes, kNo };

// How much of a model multiplies in e4m3 (nn/product.h): nothing; every linear of its blocks, but for those
// whose sizes are no multiples of 16; the same without linears that close several segments, which lose most.
enum class Tier : uint8_t { kExact, kFast, kFastStrict };

// Linears of blocks by the numbers that they multiply, or attentions by those that they attend to.
struct LinearCounts {
  int e4m3 = 0, dense = 0;
};

// What queries, keys and values of the attentions of blocks are: of the model's type, or e4m3 without scales
// (AttentionLayer), but for heads whose width is no multiple of 16. Attention to a prompt that stays outside,
// and what is no block, keep the model's type.
enum class AttentionDtype : uint8_t { kAuto, kFp8E4m3 };

// Problems with the checkpoint are collected in the store, which reports them all at once after the build.
class Builder {
 public:
  // options: element type and device of the weights; device meta: only shapes are checked, nothing is read.
  Builder(const weights::WeightStore& store, const Seams& seams, BlockMemory& memory,
          at::TensorOptions options);

  Builder operator/(std::string_view child) const;
  Builder operator/(int64_t child) const { return *this / std::to_string(child); }
  // What is built with the result belongs to block i of the block loop.
  Builder block(int i) const;
  // What is built with the result computes as the tier says. Weights are rounded while they are read, each
  // row of what this rank holds under its own scale.
  Builder of_tier(Tier tier) const;
  Builder of_attention(AttentionDtype dtype) const;
  // What is built with the result makes hidden states of its blocks' MLPs for some tokens at a
  // time; null: whole.
  Builder by_chunks(std::shared_ptr<TokenChunks> chunks) const;
  void finish_block(int i) const { memory_->finish(i); }

  Linear linear(std::string_view name, int64_t in, int64_t out, Bias bias = Bias::kYes) const;
  // Output segments, each cut on its own (q, k, v).
  Linear expand(std::string_view name, int64_t in, std::initializer_list<Dim> out,
                Bias bias = Bias::kYes) const;
  // Input segments, each cut on its own; the result is summed over ranks.
  Linear contract(std::string_view name, std::initializer_list<Dim> in, int64_t out,
                  Bias bias = Bias::kYes) const;
  // Depends on timestep and prompt only.
  ModulationTable table(std::string_view name, int64_t in, int64_t out) const;
  // What `shared` gives plus a tensor of this exact name, [parts, width] or [1, parts, width]: adaLN-single.
  ModulationTable offset_table(std::string_view name, const ModulationTable& shared,
                               at::IntArrayRef sizes) const;
  // The embedding itself in each of its parts, plus a tensor of this exact name, [parts, width] or
  // [1, parts, width].
  ModulationTable embedding_table(std::string_view name, at::IntArrayRef sizes) const;
  HeadNorm head_norm(std::string_view name, Dim heads, HeadNorm::NormKind kind = HeadNorm::NormKind::kRms,
                     double eps = 1e-6) const;
  // Of the heads held here; its sums are closed over the ranks that hold the others.
  AcrossHeadsNorm across_heads_norm(std::string_view name, Dim heads, double eps) const;
  RmsNorm rms_norm(std::string_view name, int64_t channels, double eps) const;
  LayerNorm layer_norm(std::string_view name, int64_t channels, double eps) const;
  // A whole tensor of this exact name.
  at::Tensor buffer(std::string_view name, at::IntArrayRef sizes) const;
  Attention attention(std::string_view name, std::vector<int> streams, Dim heads,
                      std::vector<int> query_streams = {}) const;
  CrossAttention cross_attention(Dim heads) const;
  Conv2d conv2d(std::string_view name, int64_t in, int64_t out, ConvShape shape) const;
  CausalConv3d conv3d(std::string_view name, int64_t in, int64_t out, Conv3dShape shape) const;
  // A weight of this exact name, whose last sizes are ones.
  ChannelNorm channel_norm(std::string_view name, at::IntArrayRef sizes) const;
  GroupNorm group_norm(std::string_view name, int64_t groups, int64_t channels, double eps) const;

  bool has(std::string_view name) const;  // a parameter of this exact name
  std::shared_ptr<ModulationTables> tables() const { return shared_->tables; }
  at::TensorOptions options() const { return options_; }
  // In blocks, so far.
  LinearCounts linears() const { return shared_->linears; }
  LinearCounts attentions() const { return shared_->attentions; }
  // Everything read so far with this builder and its children.
  const Manifest& manifest() const { return *shared_->manifest; }

 private:
  struct Shared {
    std::shared_ptr<ModulationTables> tables;
    int layers = 0;
    LinearCounts linears, attentions;
    std::shared_ptr<Manifest> manifest = std::make_shared<Manifest>();
  };
  std::vector<Range> cut(std::initializer_list<Dim> segments) const;
  at::Tensor read(const std::string& name, at::IntArrayRef full, const std::vector<Range>& rows,
                  const std::vector<Range>& cols) const;
  // Of a convolution.
  at::Tensor kernel(const std::string& name, at::IntArrayRef full) const;
  Weight matrix(const std::string& name, at::IntArrayRef full, const std::vector<Range>& rows,
                const std::vector<Range>& cols, int64_t segments = 1) const;
  Dim held(Dim heads) const;  // after the tensor cut
  // As buffer(), but of no block, because it is read before the first block runs.
  at::Tensor resident(std::string_view name, at::IntArrayRef sizes) const;
  std::string path(std::string_view name) const { return prefix_ + std::string(name); }

  const weights::WeightStore* store_;
  Seams seams_;
  BlockMemory* memory_;
  at::TensorOptions options_;
  std::string prefix_;
  int block_ = BlockMemory::kResident;
  Tier tier_ = Tier::kExact;
  AttentionDtype attention_ = AttentionDtype::kAuto;
  std::shared_ptr<TokenChunks> chunks_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace atelier::nn
