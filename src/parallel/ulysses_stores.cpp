// Where each rank's window holds what, and the stores into it.
#include "parallel/ulysses_stores.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "kernels/scatter_rows.h"
#include "nn/launch_target.h"

namespace atelier::parallel {
namespace {

constexpr int64_t kAlignment = 256;  // bytes: whole sectors, whatever the number of heads

}  // namespace

struct UlyssesStores::UlyssesStoresFlight : nn::ExchangeBuffers::Flight {
  std::vector<int64_t> asking, tokens;  // per rank of the group
  int64_t batch = 0, width = 0;         // width: of a head
  int64_t all_heads = 0;
  at::ScalarType type = at::kFloat, attended = at::kFloat;  // of what comes, and of what goes back
  std::vector<Range> heads;                                 // per rank of the group
  std::shared_ptr<Lane> lane;
  comm::Window *coming = nullptr, *returning = nullptr;

  int64_t token_bytes(int64_t head_count) const {
    return batch * head_count * width * static_cast<int64_t>(c10::elementSize(type));
  }
  int64_t attended_head_bytes() const { return width * static_cast<int64_t>(c10::elementSize(attended)); }
  int64_t attended_bytes(int64_t head_count) const { return batch * head_count * attended_head_bytes(); }
  // What a rank's window holds for it: queries [asking of all, B, heads], then keys and values [tokens of
  // all, B, 2, heads].
  int64_t kv_offset(int rank) const {
    const int64_t bytes = sum(asking) * token_bytes(heads[static_cast<size_t>(rank)].size);
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  int64_t coming_bytes(int rank) const {
    return kv_offset(rank) + 2 * sum(tokens) * token_bytes(heads[static_cast<size_t>(rank)].size);
  }
  // And its other window: what comes back, [asking of its own, B, all heads].
  int64_t returning_bytes(int rank) const {
    return asking[static_cast<size_t>(rank)] * attended_bytes(all_heads);
  }
  at::Tensor q(int rank) const {
    return tensor_in(*coming, rank, 0, {sum(asking), batch, heads[static_cast<size_t>(rank)].size, width},
                     type);
  }
  at::Tensor kv(int rank) const {
    return tensor_in(*coming, rank, kv_offset(rank),
                     {sum(tokens), batch, 2, heads[static_cast<size_t>(rank)].size, width}, type);
  }
  at::Tensor back(int rank) const {
    return tensor_in(*returning, rank, 0, {asking[static_cast<size_t>(rank)], batch, all_heads, width},
                     attended);
  }
};

int64_t UlyssesStores::bytes() const {
  int64_t all = 0;
  for (const auto& lane : lanes_) all += lane->coming.bytes() + lane->returning.bytes();
  return all;
}

void UlyssesStores::lay_pieces(const nn::CallContext& f, const nn::AttentionLayer& layer,
                               std::span<const nn::Projected> streams, const UlyssesStoresFlight& flight,
                               nn::ExchangeBuffers& in) const {
  const int me = group_.rank();
  std::vector<at::Tensor> q, kv;  // per rank of the group
  for (int r = 0; r < group_.size(); ++r) q.push_back(flight.q(r)), kv.push_back(flight.kv(r));
  const auto kv_begin = begin_in_order(f, layer, first_, group_.size(), me);
  int64_t q_begin = sum(std::span(flight.asking).first(static_cast<size_t>(me)));
  in.pieces = pieces_of_streams(f, layer, first_ + me, streams);
  for (size_t s = 0; s < in.pieces.size(); ++s) {
    const int64_t n = in.pieces[s].tokens.size;
    const bool asks = streams[in.pieces[s].projection].q.defined();
    auto& slots = in.slots.emplace_back();
    for (size_t r = 0; r < q.size(); ++r)
      slots.push_back({asks ? q[r].narrow(0, q_begin, n) : at::Tensor(), kv[r].narrow(0, kv_begin[s], n)});
    if (asks) q_begin += n;
  }
  ENSURE(q_begin == sum(std::span(flight.asking).first(static_cast<size_t>(me) + 1)));
}

nn::ExchangeBuffers UlyssesStores::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                           std::span<const nn::Projected> streams) {
  const auto& k = streams[0].k;
  auto flight = std::make_unique<UlyssesStoresFlight>();
  flight->asking = tokens_of_ranks(f, layer.query_streams, first_, group_.size());
  flight->tokens = tokens_of_ranks(f, layer.streams, first_, group_.size());
  flight->batch = k.size(1);
  flight->width = k.size(3);
  flight->all_heads = layer.heads.count;
  flight->type = c10::typeMetaToScalarType(layer.operands(k).dtype());
  flight->attended = layer.is_e4m3 ? layer.model_type : k.scalar_type();
  ENSURE(k.size(2) == layer.heads.count);
  int64_t coming = 1, returning = 1;
  for (int r = 0; r < group_.size(); ++r)
    flight->heads.push_back(Partition{layer.heads.count, group_.size()}[r]);
  for (int r = 0; r < group_.size(); ++r) {
    coming = std::max(coming, flight->coming_bytes(r));
    returning = std::max(returning, flight->returning_bytes(r));
  }
  flight->lane = unused(lanes_);
  flight->coming = flight->lane->coming.of(group_, coming);
  flight->returning = flight->lane->returning.of(group_, returning);
  if (!flight->coming || !flight->returning) return collective_.buffers(f, layer, streams);

  nn::ExchangeBuffers in;
  in.heads = flight->heads;
  lay_pieces(f, layer, streams, *flight, in);
  in.flight = std::move(flight);
  return in;
}

void UlyssesStores::launch(const nn::CallContext& f, const nn::AttentionLayer& layer,
                           nn::ExchangeBuffers& in) {
  if (dynamic_cast<UlyssesStoresFlight*>(in.flight.get()) == nullptr) return collective_.launch(f, layer, in);
  in.slots.clear();
  ran_ = true;
}

nn::Qkv UlyssesStores::wait(const nn::CallContext& f, const nn::AttentionLayer& layer,
                            nn::ExchangeBuffers& in) {
  const auto* flight = dynamic_cast<UlyssesStoresFlight*>(in.flight.get());
  if (flight == nullptr) return collective_.wait(f, layer, in);
  const int me = group_.rank();
  const auto mine = static_cast<size_t>(me);
  const int64_t others = layer.heads.count - flight->heads[mine].size;
  flight->coming->barrier((flight->asking[mine] + 2 * flight->tokens[mine]) * flight->token_bytes(others));
  return {flight->q(me), flight->kv(me), {first_, group_.size(), f.patch}};
}

at::Tensor UlyssesStores::scatter_back(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                       nn::ExchangeBuffers& in, at::Tensor out) {
  const auto* flight = dynamic_cast<UlyssesStoresFlight*>(in.flight.get());
  if (flight == nullptr) return collective_.scatter_back(f, layer, in, std::move(out));
  const int me = group_.rank();
  const auto heads = flight->heads[static_cast<size_t>(me)];
  const auto rows = out.contiguous();
  ENSURE(group_.size() <= kernels::kMaxRowTargets && rows.scalar_type() == flight->attended);
  ENSURE(static_cast<int64_t>(rows.nbytes()) == sum(flight->asking) * flight->attended_bytes(heads.size));
  kernels::RowScatter scatter{.from = rows.const_data_ptr(),
                              .row_bytes = heads.size * flight->attended_head_bytes(),
                              .target_count = group_.size()};
  int64_t stored = 0;
  for (int r = 0; r < group_.size(); ++r) {
    const int64_t count = flight->asking[static_cast<size_t>(r)] * flight->batch;
    if (count > 0 && heads.size > 0) {
      scatter.targets[r] = {flight->back(r).narrow(2, heads.begin, heads.size).data_ptr(), count,
                            layer.heads.count * flight->attended_head_bytes()};
    }
    if (r != me) stored += count * scatter.row_bytes;
  }
  kernels::scatter_rows(nn::launch_target_of(rows), scatter);
  flight->returning->barrier(stored);
  return flight->back(me);
}

}  // namespace atelier::parallel
