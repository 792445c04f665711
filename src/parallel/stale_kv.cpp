// The buffers of stale keys and values.
#include "parallel/stale_kv.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/check.h"

namespace atelier::parallel {
namespace {

int patches_of(const nn::Frame& f) {
  int patches = 1;
  for (const auto& stream : f.streams) {
    if (!stream.rides_first) patches = std::max(patches, stream.patches.parts);
  }
  return patches;
}

// What arrived in the order [rank][stream][patch] goes to [patch][rank][stream].
void fill(at::Tensor& slots, const nn::Frame& f, const nn::Site& site, nn::Held held, const at::Tensor& kv) {
  int64_t to = 0;
  for (int wanted = 0; wanted < patches_of(f); ++wanted) {
    int64_t from = 0;
    for (int rank = held.first; rank < held.first + held.count; ++rank) {
      for (const int stream : site.streams) {
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

Range slots_of(const nn::Frame& f, const nn::Site& site, nn::Held held) {
  const auto tokens = [&](int patch) {
    int64_t n = 0;
    for (int u = 0; u < held.count; ++u) n += f.tokens(site.streams, held.first + u, patch);
    return n;
  };
  int64_t begin = 0;
  for (int p = 0; p < *held.patch; ++p) begin += tokens(p);
  return {begin, tokens(*held.patch)};
}

}  // namespace

nn::Attended StaleKv::run(const nn::Frame& f, const nn::Site& site, nn::Held held, const at::Tensor& q,
                          const at::Tensor& kv, nn::Lse lse) {
  if (patches_of(f) == 1) return next_.run(f, site, held, q, kv, lse);
  auto& kept = kept_[{f.branch, site.id, held.first}];
  if (!held.patch) {
    if (!kept.slots.defined() || kept.slots.sizes() != kv.sizes() || kept.slots.dtype() != kv.dtype()) {
      kept.slots = at::empty(kv.sizes(), kv.options());
    }
    fill(kept.slots, f, site, held, kv);
    kept.is_warm = true;
    return next_.run(f, site, held, q, kv, lse);
  }
  ENSURE(kept.is_warm);
  const Range mine = slots_of(f, site, held);
  ENSURE(mine.size == kv.size(0) && mine.end() <= kept.slots.size(0));
  kept.slots.narrow(0, mine.begin, mine.size).copy_(kv);
  ran_ = true;
  held.patch.reset();
  return next_.run(f, site, held, q, kept.slots, lse);
}

void StaleKv::begin_request() {
  for (auto& [key, kept] : kept_) {
    // A recorded CUDA graph fills the slots without calling run(): there, only the first request is checked.
    if (!kept.slots.is_cuda()) kept.is_warm = false;
  }
}

int64_t StaleKv::bytes() const {
  int64_t all = 0;
  for (const auto& [key, kept] : kept_) all += static_cast<int64_t>(kept.slots.nbytes());
  return all;
}

}  // namespace atelier::parallel
