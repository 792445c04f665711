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

struct UlyssesStores::Flight : nn::ExchangeBuffers::Flight {
  std::vector<int64_t> asking, tokens;  // per rank of the group
  int64_t batch = 0, width = 0;         // width: of a head
  int64_t all_heads = 0;
  at::TensorOptions options;
  std::vector<Range> heads;  // per rank of the group
  std::shared_ptr<Lane> lane;
  comm::Window *coming = nullptr, *returning = nullptr;

  int64_t head_bytes() const { return width * static_cast<int64_t>(options.dtype().itemsize()); }
  int64_t token_bytes(int64_t head_count) const { return batch * head_count * head_bytes(); }
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
    return asking[static_cast<size_t>(rank)] * token_bytes(all_heads);
  }
  at::Tensor of(const comm::Window& window, int rank, int64_t offset, at::IntArrayRef shape) const {
    const int64_t bytes = c10::multiply_integers(shape) * static_cast<int64_t>(options.dtype().itemsize());
    const auto type = c10::typeMetaToScalarType(options.dtype());
    return window.peer(rank).narrow(0, offset, bytes).view(type).view(shape);
  }
  at::Tensor q(int rank) const {
    return of(*coming, rank, 0, {sum(asking), batch, heads[static_cast<size_t>(rank)].size, width});
  }
  at::Tensor kv(int rank) const {
    return of(*coming, rank, kv_offset(rank),
              {sum(tokens), batch, 2, heads[static_cast<size_t>(rank)].size, width});
  }
  at::Tensor back(int rank) const {
    return of(*returning, rank, 0, {asking[static_cast<size_t>(rank)], batch, all_heads, width});
  }
};

std::shared_ptr<UlyssesStores::Lane> UlyssesStores::free_lane() {
  for (const auto& lane : lanes_) {
    if (lane.use_count() == 1) return lane;  // no flight holds it
  }
  return lanes_.emplace_back(std::make_shared<Lane>());
}

comm::Window* UlyssesStores::Windows::of(comm::Comm& group, int64_t bytes) {
  const auto fits = std::find_if(kept.begin(), kept.end(), [&](const auto& w) { return w.bytes >= bytes; });
  if (fits != kept.end()) return fits->window.get();
  if (bytes >= refused) return nullptr;
  // Sizes that grow a little each time must not leave a window each.
  const int64_t roomy = kept.empty() ? bytes : std::max(bytes, kept.back().bytes + kept.back().bytes / 2);
  for (const int64_t asked : {roomy, bytes}) {
    if (auto opened = group.window(asked)) return kept.emplace_back(asked, std::move(opened)).window.get();
    if (roomy == bytes) break;
  }
  refused = kept.empty() ? 0 : bytes;  // where there was none at all the peers are out of reach
  return nullptr;
}

int64_t UlyssesStores::bytes() const {
  int64_t all = 0;
  for (const auto& lane : lanes_) {
    for (const auto* windows : {&lane->coming, &lane->returning}) {
      for (const auto& one : windows->kept) all += one.bytes;
    }
  }
  return all;
}

// A projection may hold several streams, which lie apart among the keys of all ranks.
void UlyssesStores::lay_pieces(const nn::CallContext& f, const nn::AttentionLayer& layer,
                               std::span<const nn::Projected> streams, const Flight& flight,
                               nn::ExchangeBuffers& in) const {
  const int me = group_.rank();
  std::vector<at::Tensor> q, kv;  // per rank of the group
  for (int r = 0; r < group_.size(); ++r) q.push_back(flight.q(r)), kv.push_back(flight.kv(r));
  const auto kv_begin = begin_in_order(f, layer, first_, group_.size(), me);
  int64_t q_begin = sum(std::span(flight.asking).first(static_cast<size_t>(me)));
  size_t projection = 0;
  int64_t taken = 0;
  for (size_t s = 0; s < layer.streams.size(); ++s) {
    const int64_t n = f.tokens(std::span(layer.streams).subspan(s, 1), first_ + me, f.patch);
    while (n > 0 && taken == streams[projection].k.size(0)) {
      ENSURE(++projection < streams.size());
      taken = 0;
    }
    ENSURE(taken + n <= streams[projection].k.size(0));
    const bool asks = streams[projection].q.defined();
    in.pieces.push_back({projection, {taken, n}});
    auto& slots = in.slots.emplace_back();
    for (size_t r = 0; r < q.size(); ++r)
      slots.push_back({asks ? q[r].narrow(0, q_begin, n) : at::Tensor(), kv[r].narrow(0, kv_begin[s], n)});
    taken += n;
    if (asks) q_begin += n;
  }
  const auto asked = sum(std::span(flight.asking).first(static_cast<size_t>(me) + 1));
  int64_t given = 0;
  for (const auto& p : streams) given += p.k.size(0);
  ENSURE(given == flight.tokens[static_cast<size_t>(me)] && q_begin == asked);
}

nn::ExchangeBuffers UlyssesStores::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                           std::span<const nn::Projected> streams) {
  const auto& k = streams[0].k;
  auto flight = std::make_unique<Flight>();
  flight->asking = tokens_of_ranks(f, layer.query_streams, first_, group_.size());
  flight->tokens = tokens_of_ranks(f, layer.streams, first_, group_.size());
  flight->batch = k.size(1);
  flight->width = k.size(3);
  flight->all_heads = layer.heads.count;
  flight->options = k.options();
  ENSURE(k.size(2) == layer.heads.count);
  int64_t coming = 1, returning = 1;
  for (int r = 0; r < group_.size(); ++r)
    flight->heads.push_back(Partition{layer.heads.count, group_.size()}[r]);
  for (int r = 0; r < group_.size(); ++r) {
    coming = std::max(coming, flight->coming_bytes(r));
    returning = std::max(returning, flight->returning_bytes(r));
  }
  flight->lane = free_lane();
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
  if (dynamic_cast<Flight*>(in.flight.get()) == nullptr) return collective_.launch(f, layer, in);
  in.slots.clear();
  ran_ = true;
}

nn::Qkv UlyssesStores::wait(const nn::CallContext& f, const nn::AttentionLayer& layer,
                            nn::ExchangeBuffers& in) {
  const auto* flight = dynamic_cast<Flight*>(in.flight.get());
  if (flight == nullptr) return collective_.wait(f, layer, in);
  const int me = group_.rank();
  const auto mine = static_cast<size_t>(me);
  const int64_t others = layer.heads.count - flight->heads[mine].size;
  flight->coming->barrier((flight->asking[mine] + 2 * flight->tokens[mine]) * flight->token_bytes(others));
  return {flight->q(me), flight->kv(me), {first_, group_.size(), f.patch}};
}

at::Tensor UlyssesStores::scatter_back(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                       nn::ExchangeBuffers& in, at::Tensor out) {
  const auto* flight = dynamic_cast<Flight*>(in.flight.get());
  if (flight == nullptr) return collective_.scatter_back(f, layer, in, std::move(out));
  const int me = group_.rank();
  const auto heads = flight->heads[static_cast<size_t>(me)];
  const auto rows = out.contiguous();
  ENSURE(group_.size() <= kernels::kMaxRowTargets && rows.dtype() == flight->options.dtype());
  ENSURE(static_cast<int64_t>(rows.nbytes()) == sum(flight->asking) * flight->token_bytes(heads.size));
  kernels::RowScatter scatter{.from = rows.const_data_ptr(),
                              .row_bytes = heads.size * flight->head_bytes(),
                              .target_count = group_.size()};
  int64_t stored = 0;
  for (int r = 0; r < group_.size(); ++r) {
    const int64_t count = flight->asking[static_cast<size_t>(r)] * flight->batch;
    if (count > 0 && heads.size > 0) {
      scatter.targets[r] = {flight->back(r).narrow(2, heads.begin, heads.size).data_ptr(), count,
                            layer.heads.count * flight->head_bytes()};
    }
    if (r != me) stored += count * scatter.row_bytes;
  }
  kernels::scatter_rows(nn::launch_target_of(rows), scatter);
  flight->returning->barrier(stored);
  return flight->back(me);
}

}  // namespace atelier::parallel
