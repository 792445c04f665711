// Tiled encoding and decoding: bounded memory for any size.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <functional>

#include "models/vae.h"

namespace atelier::models {
namespace {

constexpr double kOverlap = 0.25;

// Fades the first `extent` rows (dim 2) or columns (dim 3) of b in from the last ones of a, in place.
void blend(const at::Tensor& a, const at::Tensor& b, int64_t extent, int64_t dim) {
  extent = std::min({a.size(dim), b.size(dim), extent});
  auto ramp =
      at::arange(extent, b.options().dtype(at::kFloat)).to(b.scalar_type()) / static_cast<double>(extent);
  ramp = dim == 2 ? ramp.view({1, 1, -1, 1}) : ramp.view({1, 1, 1, -1});
  auto head = b.narrow(dim, 0, extent);
  head.copy_(a.narrow(dim, a.size(dim) - extent, extent) * (1 - ramp) + head * ramp);
}

struct Tiling {
  int64_t in;   // side of an input tile
  int64_t out;  // side of an output tile
};

at::Tensor tiled(const at::Tensor& x, Tiling t, const std::function<at::Tensor(const at::Tensor&)>& run) {
  const auto stride = static_cast<int64_t>(static_cast<double>(t.in) * (1 - kOverlap));
  const auto extent = static_cast<int64_t>(static_cast<double>(t.out) * kOverlap);
  const int64_t keep = t.out - extent;
  std::vector<at::Tensor> rows, above;
  for (int64_t i = 0; i < x.size(2); i += stride) {
    std::vector<at::Tensor> row, cut;
    for (int64_t j = 0; j < x.size(3); j += stride) {
      const auto tile =
          x.narrow(2, i, std::min(t.in, x.size(2) - i)).narrow(3, j, std::min(t.in, x.size(3) - j));
      row.push_back(run(tile).clone());
      if (!above.empty()) blend(above[row.size() - 1], row.back(), extent, 2);
      if (row.size() > 1) blend(row[row.size() - 2], row.back(), extent, 3);
      const auto& done = row.back();
      cut.push_back(
          done.narrow(2, 0, std::min(keep, done.size(2))).narrow(3, 0, std::min(keep, done.size(3))));
    }
    rows.push_back(at::cat(cut, 3));
    above = std::move(row);
  }
  return at::cat(rows, 2);
}

nn::CallContext whole(int64_t rows, int64_t cols) {
  return image_call(rows, cols, 1, 0);
}

}  // namespace

at::Tensor decode_tiled(const Vae& vae, const at::Tensor& z) {
  const int64_t sample = vae.facts().sample_size, latent = sample / vae.facts().spatial;
  if (z.size(2) <= latent && z.size(3) <= latent) return vae.decode(whole(z.size(2), z.size(3)), z);
  return tiled(z, {latent, sample},
               [&](const at::Tensor& t) { return vae.decode(whole(t.size(2), t.size(3)), t); });
}

at::Tensor encode_tiled(const Vae& vae, const at::Tensor& x) {
  const int64_t s = vae.facts().spatial, sample = vae.facts().sample_size;
  const auto run = [&](const at::Tensor& t) { return vae.encode(whole(t.size(2) / s, t.size(3) / s), t); };
  return x.size(2) <= sample && x.size(3) <= sample ? run(x) : tiled(x, {sample, sample / s}, run);
}

}  // namespace atelier::models
