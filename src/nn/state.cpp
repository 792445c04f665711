#include "nn/state.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace atelier::nn {

bool assign_stable_(at::Tensor& to, const at::Tensor& from) {
  const bool is_same = to.defined() == from.defined() &&
                       (!to.defined() || (to.sizes() == from.sizes() && to.dtype() == from.dtype()));
  if (!is_same) {
    to = from.defined() ? from.clone() : at::Tensor();
  } else if (to.defined()) {
    to.copy_(from);
  }
  return !is_same;
}

bool assign_by_step_(at::Tensor& to, const at::Tensor& from) {
  constexpr uint64_t kLeastSteps = 8;
  if (!from.defined()) return std::exchange(to, {}).defined();
  auto sizes = from.sizes().vec();
  const bool has_room = to.defined() && to.dtype() == from.dtype() && to.size(0) >= sizes[0] &&
                        to.sizes().slice(1) == from.sizes().slice(1);
  sizes[0] = static_cast<int64_t>(std::bit_ceil(std::max(kLeastSteps, static_cast<uint64_t>(sizes[0]))));
  if (!has_room) to = at::empty(sizes, from.options());
  to.narrow(0, 0, from.size(0)).copy_(from);
  return !has_room;
}

bool RequestContext::assign_(const RequestContext& fresh) {
  bool is_new = assign_by_step_(tables, fresh.tables);
  is_new |= assign_stable_(given, fresh.given);
  is_new |= assign_stable_(control_scales, fresh.control_scales);
  streams.resize(fresh.streams.size());
  for (size_t i = 0; i < streams.size(); ++i) is_new |= assign_stable_(streams[i], fresh.streams[i]);
  for (const auto& [id, fresh_kv] : fresh.cross) {
    is_new |= assign_stable_(cross[id].kv, fresh_kv.kv);
    is_new |= assign_stable_(cross[id].mask, fresh_kv.mask);
  }
  width = fresh.width;
  return is_new;
}

void State::keep_skip(int block, const at::Tensor& value) {
  assign_stable_(skips[block], value);
}

const at::Tensor& State::skip(int block) const {
  const auto skip_of_this_stage = skips.find(block);
  ENSURE(skip_of_this_stage != skips.end());
  return skip_of_this_stage->second;
}

at::Tensor State::stream(int i) const {
  int64_t begin = 0;
  for (int k = 0; k < i; ++k) begin += n[static_cast<size_t>(k)];
  return x.narrow(0, begin, n[static_cast<size_t>(i)]);
}

}  // namespace atelier::nn
