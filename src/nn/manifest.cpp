#include "nn/manifest.h"

#include <ATen/ops/empty.h>

#include "nn/product.h"
#include "weights/store.h"

namespace atelier::nn {
namespace {

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

void read_rows(const weights::WeightStore& store, const HeldWeight& held, Range wanted) {
  if (wanted.size == 0 && held.tensor.size(0) > 0) return;
  const bool is_all = wanted.size == held.tensor.size(0);  // of which there may be none
  const auto rows = is_all ? held.rows : section(held.rows, held.full[0], wanted);
  auto part = held.tensor.narrow(0, wanted.begin, wanted.size);
  if (!held.scale.defined()) return store.read_into(part, held.name, held.full, rows, held.cols);
  auto numbers = at::empty(part.sizes(), part.options().dtype(at::kFloat));  // rounded once
  store.read_into(numbers, held.name, held.full, rows, held.cols);
  if (part.is_meta()) return;
  quantise_e4m3_into(numbers, part, held.scale.narrow(0, wanted.begin, wanted.size));
}

void read(const weights::WeightStore& store, const HeldWeight& held) {
  read_rows(store, held, {0, held.tensor.size(0)});
}

}  // namespace atelier::nn
