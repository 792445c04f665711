#include "nn/builder.h"

#include <ATen/ops/empty.h>

#include "weights/store.h"

namespace atelier::nn {
namespace {

int64_t total(std::initializer_list<Dim> segments) {
  int64_t n = 0;
  for (const Dim& d : segments) n += d.size();
  return n;
}

int64_t total(const std::vector<Range>& ranges, int64_t whole) {
  if (ranges.empty()) return whole;
  int64_t n = 0;
  for (const Range& r : ranges) n += r.size;
  return n;
}

// Rows [wanted) of these ranges, laid one after another; no ranges: of all rows.
std::vector<Range> section(const std::vector<Range>& ranges, int64_t all, Range wanted) {
  std::vector<Range> out;
  int64_t row = 0;
  for (const Range& r : ranges.empty() ? std::vector<Range>{{0, all}} : ranges) {
    const Range part = intersection({row, r.size}, wanted);
    if (part.size > 0) out.push_back({r.begin + part.begin - row, part.size});
    row += r.size;
  }
  return out;
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
  if (held.size == weight.numel()) {
    store_->read_into(weight, name, full, rows, cols);
  } else if (held.size > 0) {  // the rows that hold a share's elements
    const int64_t width = weight.numel() / sizes[0], first = held.begin / width;
    const int64_t count = (held.end() + width - 1) / width - first;
    auto part = weight.narrow(0, first, count);
    store_->read_into(part, name, full, section(rows, full[0], {first, count}), cols);
  }
  shared_->manifest->push_back({weight, name, full.vec(), rows, cols, block_});
  return weight;
}

Linear Builder::linear(std::string_view name, int64_t in, int64_t out, Bias bias) const {
  const auto p = path(name);
  return {read(p + ".weight", {out, in}, {}, {}),
          bias == Bias::kYes ? read(p + ".bias", {out}, {}, {}) : at::Tensor(), nullptr};
}

Linear Builder::expand(std::string_view name, int64_t in, std::initializer_list<Dim> out, Bias bias) const {
  const auto p = path(name);
  const auto rows = cut(out);
  return {read(p + ".weight", {total(out), in}, rows, {}),
          bias == Bias::kYes ? read(p + ".bias", {total(out)}, rows, {}) : at::Tensor(), nullptr};
}

Linear Builder::contract(std::string_view name, std::initializer_list<Dim> in, int64_t out, Bias bias) const {
  const auto p = path(name);
  return {read(p + ".weight", {out, total(in)}, {}, cut(in)),
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
                                      int64_t parts) const {
  return shared_->tables->add_offset(shared, resident(name, {parts, shared.size / parts}));
}

ModulationTable Builder::embedding_table(std::string_view name, int64_t parts, int64_t width) const {
  return shared_->tables->add_offset_of_embedding(resident(name, {parts, width}));
}

HeadNorm Builder::head_norm(std::string_view name, Dim heads, HeadNorm::NormKind kind, double eps) const {
  const auto p = path(name);
  return {kind, read(p + ".weight", {heads.unit}, {}, {}),
          kind == HeadNorm::NormKind::kLayer ? read(p + ".bias", {heads.unit}, {}, {}) : at::Tensor(), eps};
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
  return {AttentionLayer{shared_->layers++, path(name), std::move(streams), std::move(query_streams),
                         held(heads)},
          seams_};
}

Conv2d Builder::conv2d(std::string_view name, int64_t in, int64_t out, ConvShape shape) const {
  const auto p = path(name);
  auto weight = read(p + ".weight", {out, in, shape.kernel, shape.kernel}, {}, {});
  if (block_ == BlockMemory::kResident ||
      memory_->is_used_as_read()) {  // not in shares, nor copied from a host
    weight = channels_last_(weight);
    shared_->manifest->back().tensor = weight;
  }
  return {weight, read(p + ".bias", {out}, {}, {}), shape, seams_.rows};
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
