#include "nn/builder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "weights/store.h"

namespace atelier::nn {
namespace {

int64_t total(std::initializer_list<Dim> segments) {
  int64_t n = 0;
  for (const Dim& d : segments) n += d.size();
  return n;
}

int64_t total(const std::vector<Range>& ranges, int64_t whole) {
  return ranges.empty() ? whole : size_of_all(ranges);
}

}  // namespace

Builder::Builder(const weights::WeightStore& store, const Seams& seams, BlockMemory& memory,
                 at::TensorOptions options)
    : store_(&store),
      seams_(seams),
      memory_(&memory),
      options_(options),
      shared_(std::make_shared<Shared>()) {
  shared_->tables =
      std::make_shared<ModulationTables>(store, seams.sharded_eval, memory, options, shared_->manifest);
}

Builder Builder::operator/(std::string_view child) const {
  Builder b = *this;
  b.prefix_ += std::string(child) + ".";
  return b;
}

Builder Builder::block(int i) const {
  Builder b = *this;
  b.block_ = i;
  return b;
}

Builder Builder::of_tier(Tier tier) const {
  Builder b = *this;
  b.tier_ = tier;
  return b;
}

Builder Builder::of_attention(AttentionDtype dtype) const {
  Builder b = *this;
  b.attention_ = dtype;
  return b;
}

Builder Builder::by_chunks(std::shared_ptr<TokenChunks> chunks) const {
  Builder b = *this;
  b.chunks_ = std::move(chunks);
  return b;
}

std::vector<Range> Builder::cut(std::initializer_list<Dim> segments) const {
  if (seams_.tensor_size == 1) return {};
  std::vector<Range> ranges;
  int64_t base = 0;
  for (const Dim& d : segments) {
    const Range r = Partition{d.count, seams_.tensor_size}[seams_.tensor_rank];
    ranges.push_back({base + r.begin * d.unit, r.size * d.unit});
    base += d.size();
  }
  return ranges;
}

at::Tensor Builder::read(const std::string& name, at::IntArrayRef full, const std::vector<Range>& rows,
                         const std::vector<Range>& cols) const {
  auto sizes = full.vec();
  sizes[0] = total(rows, sizes[0]);
  if (sizes.size() > 1) sizes[1] = total(cols, sizes[1]);
  auto [weight, held] = memory_->take(block_, sizes, options_);
  const HeldWeight all{weight, name, full.vec(), rows, cols, block_, {}};
  if (held.size == weight.numel()) {
    store_->read_into(weight, name, full, rows, cols);
  } else if (held.size > 0) {
    read_rows(*store_, all, rows_holding(held, weight.numel() / sizes[0]));
  }
  shared_->manifest->push_back(all);
  return weight;
}

Weight Builder::matrix(const std::string& name, at::IntArrayRef full, const std::vector<Range>& rows,
                       const std::vector<Range>& cols, int64_t segments) const {
  // Decided by the whole matrix, so that every layout decides alike.
  const bool is_e4m3 = tier_ != Tier::kExact && block_ >= 0 && full[0] % 16 == 0 && full[1] % 16 == 0 &&
                       (tier_ == Tier::kFast || segments == 1);
  if (block_ >= 0) ++(is_e4m3 ? shared_->linears.e4m3 : shared_->linears.dense);
  if (!is_e4m3) return read(name, full, rows, cols);
  const int64_t height = total(rows, full[0]), width = total(cols, full[1]);
  const auto weight = memory_->take(block_, {height, width}, options_.dtype(at::kFloat8_e4m3fn));
  const auto scale = memory_->take(block_, {height, 1}, options_.dtype(at::kFloat));
  const HeldWeight held{weight.weight, name, full.vec(), rows, cols, block_, scale.weight};
  const Range mine = width ? rows_holding(weight.held, width) : Range{0, height};
  // The scales are in other bytes of the block than the weights: another rank may hold them.
  if (scale.held.begin >= mine.begin && scale.held.end() <= mine.end()) {
    read_rows(*store_, held, mine);
  } else if (intersection(scale.held, mine).size > 0) {
    const int64_t first = std::min(scale.held.begin, mine.begin);
    read_rows(*store_, held, {first, std::max(scale.held.end(), mine.end()) - first});
  } else {
    read_rows(*store_, held, mine);
    read_rows(*store_, held, scale.held);
  }
  shared_->manifest->push_back(held);
  return {weight.weight, scale.weight};
}

Linear Builder::linear(std::string_view name, int64_t in, int64_t out, Bias bias) const {
  const auto p = path(name);
  return {matrix(p + ".weight", {out, in}, {}, {}),
          bias == Bias::kYes ? read(p + ".bias", {out}, {}, {}) : at::Tensor(), nullptr};
}

Linear Builder::expand(std::string_view name, int64_t in, std::initializer_list<Dim> out, Bias bias) const {
  const auto p = path(name);
  const auto rows = cut(out);
  const Linear made{matrix(p + ".weight", {total(out), in}, rows, {}),
                    bias == Bias::kYes ? read(p + ".bias", {total(out)}, rows, {}) : at::Tensor(), nullptr};
  return chunks_ && block_ >= 0 ? made.by_chunks(chunks_) : made;
}

Linear Builder::contract(std::string_view name, std::initializer_list<Dim> in, int64_t out, Bias bias) const {
  const auto p = path(name);
  return {matrix(p + ".weight", {out, total(in)}, {}, cut(in), std::ssize(in)),
          bias == Bias::kYes ? read(p + ".bias", {out}, {}, {}) : at::Tensor(), seams_.features};
}

ModulationTable Builder::table(std::string_view name, int64_t in, int64_t out) const {
  return shared_->tables->add(path(name), in, out);
}

at::Tensor Builder::resident(std::string_view name, at::IntArrayRef sizes) const {
  Builder outside = *this;
  outside.block_ = BlockMemory::kResident;
  return outside.buffer(name, sizes);
}

ModulationTable Builder::offset_table(std::string_view name, const ModulationTable& shared,
                                      at::IntArrayRef sizes) const {
  return shared_->tables->add_offset(shared, resident(name, sizes));
}

ModulationTable Builder::embedding_table(std::string_view name, at::IntArrayRef sizes) const {
  return shared_->tables->add_offset_of_embedding(resident(name, sizes));
}

HeadNorm Builder::head_norm(std::string_view name, Dim heads, HeadNorm::NormKind kind, double eps) const {
  const auto p = path(name);
  return {kind, read(p + ".weight", {heads.unit}, {}, {}),
          kind == HeadNorm::NormKind::kLayer ? read(p + ".bias", {heads.unit}, {}, {}) : at::Tensor(), eps};
}

AcrossHeadsNorm Builder::across_heads_norm(std::string_view name, Dim heads, double eps) const {
  return {read(path(name) + ".weight", {heads.size()}, cut({heads}), {}), heads.size(), eps, seams_.features};
}

RmsNorm Builder::rms_norm(std::string_view name, int64_t channels, double eps) const {
  return {read(path(name) + ".weight", {channels}, {}, {}), eps};
}

LayerNorm Builder::layer_norm(std::string_view name, int64_t channels, double eps) const {
  const auto p = path(name);
  return {read(p + ".weight", {channels}, {}, {}), read(p + ".bias", {channels}, {}, {}), eps};
}

at::Tensor Builder::buffer(std::string_view name, at::IntArrayRef sizes) const {
  return read(path(name), sizes, {}, {});
}

Dim Builder::held(Dim heads) const {
  return {Partition{heads.count, seams_.tensor_size}[seams_.tensor_rank].size, heads.unit};
}

CrossAttention Builder::cross_attention(Dim heads) const {
  return {shared_->layers++, held(heads)};
}

Attention Builder::attention(std::string_view name, std::vector<int> streams, Dim heads,
                             std::vector<int> query_streams) const {
  if (query_streams.empty()) query_streams = streams;
  AttentionLayer layer{shared_->layers++, path(name), std::move(streams), std::move(query_streams),
                       held(heads)};
  layer.is_e4m3 = attention_ == AttentionDtype::kFp8E4m3 && block_ >= 0 && has_e4m3_width(heads.unit);
  layer.model_type = c10::typeMetaToScalarType(options_.dtype());
  if (block_ >= 0) ++(layer.is_e4m3 ? shared_->attentions.e4m3 : shared_->attentions.dense);
  return {std::move(layer), seams_};
}

at::Tensor Builder::kernel(const std::string& name, at::IntArrayRef full) const {
  auto weight = read(name, full, {}, {});
  if (block_ == BlockMemory::kResident ||
      memory_->is_used_as_read()) {  // not in shares, nor copied from a host
    weight = channels_last_(weight);
    shared_->manifest->back().tensor = weight;
  }
  return weight;
}

Conv2d Builder::conv2d(std::string_view name, int64_t in, int64_t out, ConvShape shape) const {
  const auto p = path(name);
  const auto weight = kernel(p + ".weight", {out, in, shape.kernel, shape.kernel});
  return {weight, read(p + ".bias", {out}, {}, {}), shape, seams_.rows};
}

CausalConv3d Builder::conv3d(std::string_view name, int64_t in, int64_t out, Conv3dShape shape) const {
  const auto p = path(name);
  const auto weight = kernel(p + ".weight", {out, in, shape.frames, shape.kernel, shape.kernel});
  return {weight, read(p + ".bias", {out}, {}, {}), shape, seams_.rows};
}

ChannelNorm Builder::channel_norm(std::string_view name, at::IntArrayRef sizes) const {
  return ChannelNorm(buffer(name, sizes).flatten());
}

GroupNorm Builder::group_norm(std::string_view name, int64_t groups, int64_t channels, double eps) const {
  const auto p = path(name);
  return {read(p + ".weight", {channels}, {}, {}), read(p + ".bias", {channels}, {}, {}), groups, eps,
          seams_.positions};
}

bool Builder::has(std::string_view name) const {
  return store_->has(path(name));
}

}  // namespace atelier::nn
