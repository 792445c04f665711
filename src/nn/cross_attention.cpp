#include "nn/cross_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "nn/sdpa.h"

namespace atelier::nn {
namespace {

// [B, 1, 1, keys]: 0 for the keys that count, -inf behind them.
at::Tensor mask_of(std::span<const int64_t> lengths, int64_t keys, const at::TensorOptions& options) {
  ENSURE(std::all_of(lengths.begin(), lengths.end(), [&](int64_t n) { return n >= 1 && n <= keys; }));
  const auto n = at::tensor(at::ArrayRef<int64_t>(lengths.data(), lengths.size()));
  const auto hidden = at::arange(keys, n.options()).unsqueeze(0) >= n.unsqueeze(1);
  auto mask = at::zeros(hidden.sizes(), at::TensorOptions(at::kFloat));
  mask.masked_fill_(hidden, -std::numeric_limits<float>::infinity());
  return mask.to(options.dtype()).to(options.device()).unsqueeze(1).unsqueeze(1);
}

// [n, B, h, d] -> [B, h, n, d]
at::Tensor heads_first(const at::Tensor& t) {
  return t.permute({1, 2, 0, 3});
}

}  // namespace

void CrossAttention::begin(RequestContext& context, const Projected& prompt,
                           std::span<const int64_t> lengths) const {
  const auto& k = prompt.k;
  ENSURE(k.size(2) == heads_.count && !prompt.q.defined());
  KeyValue made{at::empty({k.size(0), k.size(1), 2, k.size(2), k.size(3)}, k.options()), {}};
  const ProjectionSlot slot{{}, made.kv};
  const Range all{0, k.size(2)};
  place(prompt, std::span(&slot, 1), std::span(&all, 1));
  if (!lengths.empty()) {
    ENSURE(static_cast<int64_t>(lengths.size()) == k.size(1));
    made.mask = mask_of(lengths, k.size(0), k.options());
  }
  context.cross[id_] = std::move(made);
}

at::Tensor CrossAttention::operator()(const State& s, const Projected& tokens) const {
  const KeyValue& prompt = s.context->cross.at(id_);
  ENSURE(tokens.q.size(2) == heads_.count && !tokens.k.defined());
  const auto q = at::empty(tokens.q.sizes(), tokens.q.options());
  if (q.numel() == 0) return q.flatten(2);
  const ProjectionSlot slot{q, {}};
  const Range all{0, q.size(2)};
  place(tokens, std::span(&slot, 1), std::span(&all, 1));
  const auto out =
      attend(heads_first(q), heads_first(prompt.kv.select(2, 0)), heads_first(prompt.kv.select(2, 1)),
             prompt.mask, 1 / std::sqrt(static_cast<double>(q.size(3))));
  return out.permute({2, 0, 1, 3}).flatten(2);
}

}  // namespace atelier::nn
