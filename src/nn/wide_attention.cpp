#include "nn/wide_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"
#include "nn/launch_target.h"

namespace atelier::nn {
namespace {

constexpr int64_t kMostScores = int64_t{1} << 26;  // held at once: 256 MiB of floats

}  // namespace

AttentionOutput wide_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t batch = q.size(0), heads = q.size(1), n = q.size(2), d = q.size(3), keys = k.size(2);
  const int64_t run = std::clamp<int64_t>(kMostScores / keys, 1, n);
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  const auto floats = q.options().dtype(at::kFloat);
  auto scores = at::empty({run, keys}, floats), shares = at::empty({run, keys}, q.options());
  auto out = at::empty({n, batch, heads, d}, q.options()).permute({1, 2, 0, 3});
  auto lse = at::empty({batch, heads, n}, floats);
  for (int64_t head = 0; head < batch * heads; ++head) {
    const auto of_head = [&](const at::Tensor& t) {
      return t.select(0, head / heads).select(0, head % heads);
    };
    const auto keys_t = of_head(k).t(), values = of_head(v);
    for (int64_t begin = 0; begin < n; begin += run) {
      const int64_t rows = std::min(run, n - begin);
      auto s = scores.narrow(0, 0, rows), p = shares.narrow(0, 0, rows);
      at::mm_out(s, of_head(q).narrow(0, begin, rows), keys_t, at::kFloat);
      kernels::softmax(launch_target_of(q), dtype_of(q), p.data_ptr(),
                       of_head(lse).narrow(0, begin, rows).data_ptr(), s.const_data_ptr(), scale, rows, keys);
      auto o = of_head(out).narrow(0, begin, rows);
      at::mm_out(o, p, values);
    }
  }
  return {out, lse};
}

}  // namespace atelier::nn
