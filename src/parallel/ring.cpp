// The rotation, and the merge.
#include "parallel/ring.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/sigmoid.h>

#include "base/check.h"

namespace atelier::parallel {

void merge_(nn::AttentionOutput& all, const nn::AttentionOutput& block) {
  // exp(b) / (exp(a) + exp(b)) = sigmoid(b - a). Neither has keys: -inf - -inf, and nothing to add.
  const auto weight = at::nan_to_num(at::sigmoid(block.lse - all.lse), 0.0);
  all.out.lerp_(block.out.to(all.out.scalar_type()), weight.permute({2, 0, 1}).unsqueeze(-1));
  all.lse = at::logaddexp(all.lse, block.lse);
}

nn::AttentionOutput Ring::run(const nn::CallContext& f, const nn::AttentionLayer& layer, nn::KvExtent held,
                              const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) {
  const int size = group_.size(), me = group_.rank();
  if (size == 1 || f.is_on_one_rank(layer.streams)) return next_.run(f, layer, held, q, kv, lse);
  const auto tokens = [&](int place) {
    int64_t n = 0;
    for (int u = 0; u < held.count; ++u) n += f.tokens(layer.streams, place * held.count + u, held.patch);
    return n;
  };
  ENSURE(held.first == me * held.count && kv.size(0) == tokens(me));
  ran_ = true;
  const auto type = layer.attended_type(q);
  const auto acc_dtype = type == at::kDouble ? at::kDouble : at::kFloat;
  nn::AttentionOutput all;
  at::Tensor block = kv.contiguous();
  for (int hop = 0; hop < size; ++hop) {
    const int owner = (me + size - hop) % size, next_owner = (owner + size - 1) % size;
    at::Tensor incoming;
    comm::Work transfer;
    if (hop + 1 < size) {
      auto sizes = block.sizes().vec();
      sizes[0] = tokens(next_owner);
      incoming = at::empty(sizes, block.options());
      transfer = group_.send_recv(block, (me + 1) % size, incoming, (me + size - 1) % size);
    }
    const nn::KvExtent here{owner * held.count, held.count, held.patch};
    auto part = next_.run(f, layer, here, q, block, nn::Lse::kNeeded);
    if (hop == 0) {
      all = {part.out.to(acc_dtype), part.lse};
    } else {
      merge_(all, part);
    }
    transfer.wait();
    block = incoming;
  }
  all.out = all.out.to(type);
  return all;
}

}  // namespace atelier::parallel
