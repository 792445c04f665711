#include "nn/modulation_table.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include "base/check.h"
#include "nn/state.h"
#include "weights/store.h"

namespace atelier::nn {

ModulationTable ModulationTables::added(One one) {
  ENSURE(!weight_.defined());
  all_.push_back(std::move(one));
  const int64_t size = all_.back().out;
  total_ += size;
  return {total_ - size, size, static_cast<int>(all_.size()) - 1};
}

ModulationTable ModulationTables::add(const std::string& name, int64_t in, int64_t out) {
  ENSURE(in_ == 0 || in_ == in);
  in_ = in;
  linear_rows_ += out;
  return added({.name = name, .in = in, .out = out});
}

ModulationTable ModulationTables::add_offset(const ModulationTable& shared, const at::Tensor& offset) {
  ENSURE(!all_.at(static_cast<size_t>(shared.index)).name.empty() && offset.numel() == shared.size);
  return added({.out = shared.size, .shared = shared.index, .offset = offset.flatten()});
}

ModulationTable ModulationTables::add_offset_of_embedding(const at::Tensor& offset) {
  return added({.out = offset.numel(), .offset = offset.flatten()});
}

void ModulationTables::read(at::Tensor& part, const std::string& name, at::IntArrayRef full, Range rows) {
  store_->read_into(part, name, full, std::span(&rows, 1), {});
  manifest_->push_back({part, name, full.vec(), {rows}, {}, BlockMemory::kTables});
}

void ModulationTables::load() {
  if (linear_rows_ == 0) return;
  const Range mine = sharded_eval_ ? sharded_eval_->mine(linear_rows_) : Range{0, linear_rows_};
  weight_ = memory_->take(BlockMemory::kTables, {mine.size, in_}, options_).weight;
  bias_ = memory_->take(BlockMemory::kTables, {mine.size}, options_).weight;
  int64_t base = 0;
  for (const auto& t : all_) {
    if (t.name.empty()) continue;
    const int64_t lo = std::max(mine.begin, base), hi = std::min(mine.end(), base + t.out);
    if (lo < hi) {
      const Range rows{lo - base, hi - lo};
      auto w = weight_.narrow(0, lo - mine.begin, rows.size), b = bias_.narrow(0, lo - mine.begin, rows.size);
      read(w, t.name + ".weight", {t.out, t.in}, rows);
      read(b, t.name + ".bias", {t.out}, rows);
    }
    base += t.out;
  }
  memory_->finish(BlockMemory::kTables);
}

at::Tensor ModulationTables::linears(const at::Tensor& condition) const {
  if (linear_rows_ == 0) return at::empty({condition.size(0), condition.size(1), 0}, condition.options());
  ENSURE(weight_.defined());
  constexpr int tables[] = {BlockMemory::kTables};
  memory_->will_run(tables);
  memory_->before(BlockMemory::kTables);
  auto part = at::linear(condition, weight_, bias_);  // [rows, B, mine]
  if (!sharded_eval_) return part;
  const auto whole = sharded_eval_->gather(part.permute({2, 0, 1}).contiguous(), linear_rows_);
  return whole.permute({1, 2, 0}).contiguous();
}

at::Tensor ModulationTables::evaluate(const at::Tensor& condition, const at::Tensor& embedding) const {
  auto of_linears = linears(condition);
  if (linear_rows_ == total_) return of_linears;
  std::vector<at::Tensor> pieces;
  int64_t column = 0;
  for (const auto& t : all_) {
    if (!t.name.empty()) {
      pieces.push_back(of_linears.narrow(-1, column, t.out));
      column += t.out;
    } else if (t.shared >= 0) {
      pieces.push_back(pieces[static_cast<size_t>(t.shared)] + t.offset);
    } else {
      pieces.push_back(embedding.repeat({1, 1, t.out / embedding.size(-1)}) + t.offset);
    }
  }
  return at::cat(pieces, -1);
}

std::vector<at::Tensor> chunks(const ModulationTable& t, const at::Tensor& row, int parts) {
  const int64_t each = t.size / parts;
  std::vector<at::Tensor> out;
  for (int i = 0; i < parts; ++i) out.push_back(row.narrow(-1, t.begin + i * each, each));
  return out;
}

std::vector<at::Tensor> chunks(const ModulationTable& t, const State& s, int parts) {
  return chunks(t, s.row, parts);
}

Modulations modulations(const ModulationTable& t, const at::Tensor& row, int64_t width) {
  const auto c = chunks(t, row, static_cast<int>(t.size / width));
  Modulations m{{c[0], c[1], c[2]}, {}};
  if (c.size() == 6) m.mlp = {c[3], c[4], c[5]};
  return m;
}

Modulations modulations(const ModulationTable& t, const State& s, int64_t width) {
  return modulations(t, s.row, width);
}

}  // namespace atelier::nn
