#include "parallel/kv_gather_stores.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/check.h"
#include "kernels/types.h"
#include "parallel/ulysses.h"

namespace atelier::parallel {

struct KvGatherStores::GatherStoresFlight : nn::ExchangeBuffers::Flight {
  std::shared_ptr<Windows> memory;
  comm::Window* window = nullptr;
  at::Tensor q, kv;         // kv: of all ranks [tokens, B, 2, h, d], in the window
  std::vector<Range> mine;  // bytes of the window: of this rank's tokens, stream by stream
  comm::Work copies;
};

nn::ExchangeBuffers KvGatherStores::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                            std::span<const nn::Projected> streams) {
  const auto& k = streams[0].k;
  const int64_t tokens = sum(tokens_of_ranks(f, layer.streams, first_, group_.size()));
  const auto operands = layer.operands(k);
  const int64_t token_bytes =
      k.size(1) * 2 * k.size(2) * k.size(3) * static_cast<int64_t>(operands.dtype().itemsize());
  auto flight = std::make_unique<GatherStoresFlight>();
  flight->memory = unused(memory_);
  if (group_.size() <= kernels::kMaxTargets)
    flight->window = flight->memory->of(group_, std::max<int64_t>(1, tokens * token_bytes));
  if (!flight->window) return messages_.buffers(f, layer, streams);

  const int me = first_ + group_.rank();
  flight->q =
      at::empty({f.tokens(layer.query_streams, me, f.patch), k.size(1), k.size(2), k.size(3)}, operands);
  const auto kv_of = [&](int rank) {
    return tensor_in(*flight->window, rank, 0, {tokens, k.size(1), 2, k.size(2), k.size(3)},
                     c10::typeMetaToScalarType(operands.dtype()));
  };
  flight->kv = kv_of(group_.rank());
  std::vector<at::Tensor> theirs;
  // All have attended to what this memory held. On a stream beside, this would come after the products that
  // the copies are to hide behind: those leave no multiprocessor free.
  flight->window->barrier();
  if (!layer.is_overlapped) {
    for (int step = 1; step < group_.size(); ++step)
      theirs.push_back(kv_of((group_.rank() + step) % group_.size()));
  }
  const auto begin = begin_in_order(f, layer, first_, group_.size(), group_.rank());
  nn::ExchangeBuffers in;
  in.heads = {{0, k.size(2)}};
  in.pieces = pieces_of_streams(f, layer, me, streams);
  int64_t asked = 0;
  for (size_t s = 0; s < in.pieces.size(); ++s) {
    const int64_t n = in.pieces[s].tokens.size;
    const bool asks = streams[in.pieces[s].projection].q.defined();
    const auto mine = [&](const at::Tensor& kv) { return kv.narrow(0, begin[s], n); };
    nn::ProjectionSlot slot{asks ? flight->q.narrow(0, asked, n) : at::Tensor(), mine(flight->kv), {}};
    for (const at::Tensor& kv : theirs) slot.kv_copies.push_back(mine(kv));
    in.slots.push_back({std::move(slot)});
    flight->mine.push_back({begin[s] * token_bytes, n * token_bytes});
    if (asks) asked += n;
  }
  ENSURE(asked == flight->q.size(0));
  in.flight = std::move(flight);
  return in;
}

void KvGatherStores::launch(const nn::CallContext& f, const nn::AttentionLayer& layer,
                            nn::ExchangeBuffers& in) {
  auto* flight = dynamic_cast<GatherStoresFlight*>(in.flight.get());
  if (flight == nullptr) return messages_.launch(f, layer, in);
  in.slots.clear();
  if (layer.is_overlapped) flight->copies = flight->window->copy_to_peers(flight->mine);
  ran_ = true;
}

nn::Qkv KvGatherStores::wait(const nn::CallContext& f, const nn::AttentionLayer& layer,
                             nn::ExchangeBuffers& in) {
  auto* flight = dynamic_cast<GatherStoresFlight*>(in.flight.get());
  if (flight == nullptr) return messages_.wait(f, layer, in);
  flight->copies.wait();
  flight->window->barrier((group_.size() - 1) * size_of_all(flight->mine));
  return {flight->q, flight->kv, {first_, group_.size(), f.patch}};
}

at::Tensor KvGatherStores::scatter_back(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                        nn::ExchangeBuffers& in, at::Tensor out) {
  const bool is_mine = dynamic_cast<GatherStoresFlight*>(in.flight.get()) != nullptr;
  return is_mine ? out : messages_.scatter_back(f, layer, in, std::move(out));
}

int64_t KvGatherStores::bytes() const {
  int64_t all = 0;
  for (const auto& windows : memory_) all += windows->bytes();
  return all;
}

}  // namespace atelier::parallel
