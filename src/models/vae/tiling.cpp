#include "models/vae/tiling.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <vector>

namespace atelier::models {
namespace {

// Fades the first `extent` rows (dim -2) or columns (dim -1) of b in from the last ones of a, in place.
void blend(const at::Tensor& a, const at::Tensor& b, int64_t extent, int64_t dim) {
  extent = std::min({a.size(dim), b.size(dim), extent});
  auto ramp =
      at::arange(extent, b.options().dtype(at::kFloat)).to(b.scalar_type()) / static_cast<double>(extent);
  if (dim == -2) ramp = ramp.unsqueeze(1);
  auto head = b.narrow(dim, 0, extent);
  head.copy_(a.narrow(dim, a.size(dim) - extent, extent) * (1 - ramp) + head * ramp);
}

at::Tensor first(const at::Tensor& x, int64_t dim, int64_t most) {
  return x.narrow(dim, 0, std::min(most, x.size(dim)));
}

at::Tensor from(const at::Tensor& x, int64_t dim, int64_t begin, int64_t most) {
  return x.narrow(dim, begin, std::min(most, x.size(dim) - begin));
}

}  // namespace

at::Tensor tiled(const at::Tensor& x, const Tiling& t,
                 const std::function<at::Tensor(const at::Tensor&)>& run) {
  std::vector<at::Tensor> rows, above;
  for (int64_t i = 0; i < x.size(-2); i += t.step) {
    std::vector<at::Tensor> row, cut;
    for (int64_t j = 0; j < x.size(-1); j += t.step) {
      row.push_back(run(from(from(x, -2, i, t.in), -1, j, t.in)).clone());
      if (!above.empty()) blend(above[row.size() - 1], row.back(), t.blend, -2);
      if (row.size() > 1) blend(row[row.size() - 2], row.back(), t.blend, -1);
      cut.push_back(first(first(row.back(), -2, t.keep), -1, t.keep));
    }
    rows.push_back(at::cat(cut, -1));
    above = std::move(row);
  }
  return at::cat(rows, -2);
}

}  // namespace atelier::models
