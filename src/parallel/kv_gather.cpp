// Two gathers around what the inner exchange does.
#include "parallel/kv_gather.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "base/check.h"
#include "parallel/ulysses.h"

namespace atelier::parallel {
namespace {

constexpr int kKeys = 0, kValues = 1;  // of dimension 2 of keys and values, and of 0 of what arrives

}  // namespace

struct KvGather::GatherFlight : nn::ExchangeBuffers::Flight {
  nn::ExchangeBuffers inner;
  std::vector<int64_t> tokens;  // per rank of the group, of those that it brings together
  nn::Qkv mine;
  bool is_early = false;        // values are sent as they are projected
  at::Tensor sent[2], arrived;  // arrived: [2, tokens of all, B, h, d]
  comm::Work work[2];
};

nn::ExchangeBuffers KvGather::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                      std::span<const nn::Projected> streams) {
  if (f.is_on_one_rank(layer.streams)) return inner_.buffers(f, layer, streams);
  auto flight = std::make_unique<GatherFlight>();
  for (int r = 0; r < group_.size(); ++r)
    flight->tokens.push_back(sum(tokens_of_ranks(f, layer.streams, first_ + r * together_, together_)));
  flight->inner = inner_.buffers(f, layer, streams);
  nn::ExchangeBuffers in;
  in.slots = std::move(flight->inner.slots);
  in.pieces = flight->inner.pieces;
  in.heads = flight->inner.heads;
  flight->is_early = together_ == 1 && !layer.is_e4m3;
  if (flight->is_early) {
    std::vector<at::Tensor> values;
    for (const auto& p : streams) values.push_back(p.v);
    gather(*flight, kValues, at::cat(values));
  }
  in.flight = std::move(flight);
  return in;
}

void KvGather::gather(GatherFlight& flight, int which, const at::Tensor& mine) {
  const auto me = static_cast<size_t>(group_.rank());
  ENSURE(mine.dim() == 4 && mine.size(0) == flight.tokens[me]);
  const int64_t row = mine.size(1) * mine.size(2) * mine.size(3);
  std::vector<int64_t> split;
  for (const int64_t n : flight.tokens) split.push_back(n * row);
  if (!flight.arrived.defined())
    flight.arrived =
        at::empty({2, sum(flight.tokens), mine.size(1), mine.size(2), mine.size(3)}, mine.options());
  flight.sent[which] = mine.contiguous();
  auto place = flight.arrived.select(0, which);
  flight.work[which] = group_.all_gather(place, flight.sent[which], split);
  ran_ = true;
}

void KvGather::launch(const nn::CallContext& f, const nn::AttentionLayer& layer, nn::ExchangeBuffers& in) {
  if (f.is_on_one_rank(layer.streams)) return inner_.launch(f, layer, in);
  auto& flight = static_cast<GatherFlight&>(*in.flight);
  in.slots.clear();
  inner_.launch(f, layer, flight.inner);
  if (together_ > 1) return;
  flight.mine = inner_.wait(f, layer, flight.inner);
  if (!flight.is_early) gather(flight, kValues, flight.mine.kv.select(2, kValues));
  gather(flight, kKeys, flight.mine.kv.select(2, kKeys));
}

nn::Qkv KvGather::wait(const nn::CallContext& f, const nn::AttentionLayer& layer, nn::ExchangeBuffers& in) {
  if (f.is_on_one_rank(layer.streams)) return inner_.wait(f, layer, in);
  auto& flight = static_cast<GatherFlight&>(*in.flight);
  if (together_ > 1) {
    flight.mine = inner_.wait(f, layer, flight.inner);
    for (const int which : {kValues, kKeys}) gather(flight, which, flight.mine.kv.select(2, which));
  }
  ENSURE(flight.mine.held.first == first_ + group_.rank() * together_ && flight.mine.held.count == together_);
  for (const int which : {kValues, kKeys}) flight.work[which].wait();
  const auto kv = in_order(f, layer, flight.arrived).permute({1, 2, 0, 3, 4});
  for (at::Tensor& sent : flight.sent) sent.reset();
  flight.arrived.reset();
  return {std::exchange(flight.mine.q, {}), kv, {first_, group_.size() * together_, f.patch}};
}

at::Tensor KvGather::in_order(const nn::CallContext& f, const nn::AttentionLayer& layer,
                              const at::Tensor& arrived) const {
  if (layer.streams.size() < 2 || has_patches(f)) return arrived;
  std::vector<at::Tensor> pieces;
  for (size_t s = 0; s < layer.streams.size(); ++s) {
    int64_t begin = 0;
    for (int r = 0; r < group_.size(); ++r) {
      for (size_t other = 0; other < layer.streams.size(); ++other) {
        const int64_t n = sum(tokens_of_ranks(f, std::span(layer.streams).subspan(other, 1),
                                              first_ + r * together_, together_));
        if (other == s) pieces.push_back(arrived.narrow(1, begin, n));
        begin += n;
      }
    }
    ENSURE(begin == arrived.size(1));
  }
  return joined(pieces, 1);
}

at::Tensor KvGather::scatter_back(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                  nn::ExchangeBuffers& in, at::Tensor out) {
  if (f.is_on_one_rank(layer.streams)) return inner_.scatter_back(f, layer, in, std::move(out));
  return inner_.scatter_back(f, layer, static_cast<GatherFlight&>(*in.flight).inner, std::move(out));
}

}  // namespace atelier::parallel
