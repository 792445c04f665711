// The buffers of stale keys and values.
#include "parallel/stale_kv.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/check.h"

namespace atelier::parallel {
namespace {

int patches_of(const nn::CallContext& f) {
  int patches = 1;
  for (const auto& stream : f.streams) {
    if (!stream.pinned_to_first_patch) patches = std::max(patches, stream.patches.parts);
  }
  return patches;
}

// What arrived in the order [rank][stream][patch] goes to [patch][rank][stream].
void fill(at::Tensor& slots, const nn::CallContext& f, const nn::AttentionLayer& layer, nn::KvExtent held,
          const at::Tensor& kv) {
  int64_t to = 0;
  for (int wanted = 0; wanted < patches_of(f); ++wanted) {
    int64_t from = 0;
    for (int rank = held.first; rank < held.first + held.count; ++rank) {
      for (const int stream : layer.streams) {
        for (int patch = 0; patch < patches_of(f); ++patch) {
          const int64_t n = f.streams[static_cast<size_t>(stream)].count(rank, patch);
          if (patch == wanted && n > 0) {
            slots.narrow(0, to, n).copy_(kv.narrow(0, from, n));
            to += n;
          }
          from += n;
        }
      }
    }
    ENSURE(from == kv.size(0));
  }
}

// Where the tokens of a patch lie in the slots; that of the patch after the last one is the end of all.
int64_t begin_of(const nn::CallContext& f, const nn::AttentionLayer& layer, nn::KvExtent held, int patch) {
  int64_t begin = 0;
  for (int p = 0; p < patch; ++p) {
    for (int u = 0; u < held.count; ++u) begin += f.tokens(layer.streams, held.first + u, p);
  }
  return begin;
}

void reserve(at::Tensor& slots, int64_t tokens, const at::Tensor& like) {
  auto sizes = like.sizes().vec();
  sizes[0] = tokens;
  if (slots.defined() && slots.sizes() == at::IntArrayRef(sizes) && slots.dtype() == like.dtype()) return;
  slots = at::empty(sizes, like.options());
}

}  // namespace

nn::AttentionOutput StaleKv::run(const nn::CallContext& f, const nn::AttentionLayer& layer, nn::KvExtent held,
                                 const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) {
  if (patches_of(f) == 1) return next_.run(f, layer, held, q, kv, lse);
  auto& kept = kept_[{f.buffers, f.branch, layer.id, held.first}];
  if (!held.patch) {
    reserve(kept.slots, kv.size(0), kv);
    fill(kept.slots, f, layer, held, kv);
    kept.filled = kv.size(0);
    return next_.run(f, layer, held, q, kv, lse);
  }
  const int64_t begin = begin_of(f, layer, held, *held.patch), end = begin + kv.size(0);
  ENSURE(end == begin_of(f, layer, held, *held.patch + 1));
  if (start_ == Start::kCold) reserve(kept.slots, begin_of(f, layer, held, patches_of(f)), kv);
  ENSURE(start_ == Start::kCold ? kept.filled >= begin
                                : kept.slots.defined() && kept.filled == kept.slots.size(0));
  kept.slots.narrow(0, begin, kv.size(0)).copy_(kv);
  kept.filled = std::max(kept.filled, end);
  ran_ = true;
  held.patch.reset();
  return next_.run(f, layer, held, q, kept.slots.narrow(0, 0, kept.filled), lse);
}

void StaleKv::begin_request(int buffers) {
  for (auto& [key, kept] : kept_) {
    if (std::get<0>(key) == buffers) kept.filled = 0;
  }
}

void StaleKv::ran_whole(int buffers) {
  for (auto& [key, kept] : kept_) {
    if (std::get<0>(key) == buffers && kept.slots.defined()) kept.filled = kept.slots.size(0);
  }
}

void StaleKv::forget(int buffers) {
  std::erase_if(kept_, [&](const auto& one) { return std::get<0>(one.first) == buffers; });
}

int64_t StaleKv::bytes(int buffers) const {
  int64_t all = 0;
  for (const auto& [key, kept] : kept_) {
    if (std::get<0>(key) == buffers && kept.slots.defined()) all += static_cast<int64_t>(kept.slots.nbytes());
  }
  return all;
}

}  // namespace atelier::parallel
