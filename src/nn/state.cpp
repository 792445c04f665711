#include "nn/state.h"

namespace atelier::nn {

void assign_stable_(at::Tensor& to, const at::Tensor& from) {
  const bool has_room = to.defined() && from.defined() && to.sizes() == from.sizes();
  if (has_room) {
    if (to.data_ptr() != from.data_ptr()) to.copy_(from);
  } else {
    const bool is_shared = from.defined() && (from.use_count() > 1 || from.storage().use_count() > 1);
    to = is_shared ? from.clone() : from;
  }
}

void RequestContext::assign_(const RequestContext& fresh) {
  assign_stable_(tables, fresh.tables);
  streams.resize(fresh.streams.size());
  for (size_t i = 0; i < streams.size(); ++i) assign_stable_(streams[i], fresh.streams[i]);
  for (const auto& [id, given] : fresh.cross) {
    assign_stable_(cross[id].kv, given.kv);
    assign_stable_(cross[id].mask, given.mask);
  }
  width = fresh.width;
}

at::Tensor State::stream(int i) const {
  int64_t begin = 0;
  for (int k = 0; k < i; ++k) begin += n[static_cast<size_t>(k)];
  return x.narrow(0, begin, n[static_cast<size_t>(i)]);
}

}  // namespace atelier::nn
