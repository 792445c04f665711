#include "nn/modulation_table.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include "base/check.h"
#include "nn/state.h"
#include "weights/store.h"

namespace atelier::nn {

ModulationTable ModulationTables::add(const std::string& name, int64_t in, int64_t out) {
  ENSURE(all_.empty() || all_.front().in == in);
  ENSURE(!weight_.defined());
  all_.push_back({name, in, out});
  total_ += out;
  return {total_ - out, out};
}

void ModulationTables::load() {
  if (all_.empty()) return;
  const Range mine = sharded_eval_ ? sharded_eval_->mine(total_) : Range{0, total_};
  weight_ = at::empty({mine.size, all_.front().in}, options_);
  bias_ = at::empty({mine.size}, options_);
  int64_t base = 0;
  for (const auto& t : all_) {
    const int64_t lo = std::max(mine.begin, base), hi = std::min(mine.end(), base + t.out);
    if (lo < hi) {
      const Range rows{lo - base, hi - lo};
      auto w = weight_.narrow(0, lo - mine.begin, rows.size), b = bias_.narrow(0, lo - mine.begin, rows.size);
      store_->read_into(w, t.name + ".weight", {t.out, t.in}, std::span(&rows, 1), {});
      store_->read_into(b, t.name + ".bias", {t.out}, std::span(&rows, 1), {});
    }
    base += t.out;
  }
}

at::Tensor ModulationTables::evaluate(const at::Tensor& condition) const {
  if (all_.empty()) return at::empty({condition.size(0), condition.size(1), 0}, condition.options());
  ENSURE(weight_.defined());
  const auto part = at::linear(condition, weight_, bias_);  // [rows, B, mine]
  if (!sharded_eval_) return part;
  const auto whole = sharded_eval_->gather(part.permute({2, 0, 1}).contiguous(), total_);
  return whole.permute({1, 2, 0}).contiguous();
}

std::vector<at::Tensor> chunks(const ModulationTable& t, const State& s, int parts) {
  const int64_t each = t.size / parts;
  std::vector<at::Tensor> out;
  for (int i = 0; i < parts; ++i) out.push_back(s.row.narrow(-1, t.begin + i * each, each));
  return out;
}

Modulations modulations(const ModulationTable& t, const State& s, int64_t width) {
  const auto c = chunks(t, s, static_cast<int>(t.size / width));
  Modulations m{{c[0], c[1], c[2]}, {}};
  if (c.size() == 6) m.mlp = {c[3], c[4], c[5]};
  return m;
}

}  // namespace atelier::nn
