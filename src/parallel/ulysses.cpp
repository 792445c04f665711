// The all-to-alls around one attention.
#include "parallel/ulysses.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace atelier::parallel {
namespace {

struct UlyssesFlight : nn::ExchangeBuffers::Flight {
  std::vector<int64_t> asking, tokens;  // per rank of the group
  int64_t batch = 0, width = 0;         // width: of a head
  std::vector<int64_t> to, from;        // elements per peer
  at::Tensor sent, arrived;             // flat; per peer its q, then its k and v
  comm::Work work;
};

}  // namespace

bool has_patches(const nn::CallContext& f) {
  return std::any_of(f.streams.begin(), f.streams.end(),
                     [](const nn::Layout& l) { return l.patches.parts > 1; });
}

std::vector<int64_t> tokens_of_ranks(const nn::CallContext& f, std::span<const int> streams, int first,
                                     int count) {
  std::vector<int64_t> n;
  for (int u = 0; u < count; ++u) n.push_back(f.tokens(streams, first + u, f.patch));
  return n;
}

std::vector<int64_t> begin_in_order(const nn::CallContext& f, const nn::AttentionLayer& layer, int first,
                                    int count, int rank) {
  const bool by_rank = has_patches(f);
  std::vector<int64_t> begin;
  for (size_t s = 0; s < layer.streams.size(); ++s) {
    const auto streams = std::span(layer.streams);
    // What lies before: whole streams of all ranks and this stream of the ranks before, or all of
    // the ranks before.
    const auto before = by_rank ? tokens_of_ranks(f, streams, first, rank)
                                : tokens_of_ranks(f, streams.first(s), first, count);
    const auto beside = by_rank ? tokens_of_ranks(f, streams.first(s), first + rank, 1)
                                : tokens_of_ranks(f, streams.subspan(s, 1), first, rank);
    begin.push_back(sum(before) + sum(beside));
  }
  return begin;
}

std::vector<nn::ProjectionPiece> pieces_of_streams(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                                   int rank, std::span<const nn::Projected> projections) {
  std::vector<nn::ProjectionPiece> pieces;
  size_t projection = 0;
  int64_t taken = 0;
  for (size_t s = 0; s < layer.streams.size(); ++s) {
    const int64_t n = f.tokens(std::span(layer.streams).subspan(s, 1), rank, f.patch);
    while (n > 0 && taken == projections[projection].k.size(0)) {
      ENSURE(++projection < projections.size());
      taken = 0;
    }
    ENSURE(taken + n <= projections[projection].k.size(0));
    pieces.push_back({projection, {taken, n}});
    taken += n;
  }
  int64_t given = 0, held = 0;
  for (const auto& p : projections) given += p.k.size(0);
  for (const auto& p : pieces) held += p.tokens.size;
  ENSURE(given == held);
  return pieces;
}

at::Tensor joined(const std::vector<at::Tensor>& parts, int64_t dim) {
  if (parts.front().scalar_type() != at::kFloat8_e4m3fn) return at::cat(parts, dim);
  std::vector<at::Tensor> bytes;
  for (const auto& part : parts) bytes.push_back(part.view(at::kByte));
  return at::cat(bytes, dim).view(at::kFloat8_e4m3fn);
}

std::vector<at::Tensor> Ulysses::in_order(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                          const std::vector<at::Tensor>& per_rank) const {
  if (has_patches(f)) return per_rank;
  std::vector<at::Tensor> pieces;
  std::vector<int64_t> taken(per_rank.size(), 0);
  for (const int stream : layer.streams) {
    for (size_t r = 0; r < per_rank.size(); ++r) {
      const int64_t n =
          f.streams[static_cast<size_t>(stream)].count(first_ + static_cast<int>(r), std::nullopt);
      pieces.push_back(per_rank[r].narrow(0, taken[r], n));
      taken[r] += n;
    }
  }
  return pieces;
}

nn::ExchangeBuffers Ulysses::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                     std::span<const nn::Projected> streams) {
  const auto& k = streams[0].k;
  const int me = group_.rank();
  auto flight = std::make_unique<UlyssesFlight>();
  flight->asking = tokens_of_ranks(f, layer.query_streams, first_, group_.size());
  flight->tokens = tokens_of_ranks(f, layer.streams, first_, group_.size());
  flight->batch = k.size(1);
  flight->width = k.size(3);
  const int64_t asking = flight->asking[me], held = flight->tokens[me];
  int64_t given = 0, given_asking = 0;
  for (const auto& p : streams) given += p.k.size(0), given_asking += p.q.defined() ? p.q.size(0) : 0;
  ENSURE(given == held && given_asking == asking && k.size(2) == layer.heads.count);

  nn::ExchangeBuffers in;
  for (int p = 0; p < group_.size(); ++p) {
    in.heads.push_back(Partition{layer.heads.count, group_.size()}[p]);
    flight->to.push_back((asking + 2 * held) * flight->batch * in.heads[p].size * flight->width);
  }
  flight->sent = at::empty({sum(flight->to)}, layer.operands(k));
  std::vector<nn::ProjectionSlot> per_peer;
  int64_t offset = 0;
  for (int p = 0; p < group_.size(); ++p) {
    const int64_t heads = in.heads[p].size, q = asking * flight->batch * heads * flight->width;
    per_peer.push_back({flight->sent.narrow(0, offset, q).view({asking, flight->batch, heads, flight->width}),
                        flight->sent.narrow(0, offset + q, flight->to[p] - q)
                            .view({held, flight->batch, 2, heads, flight->width})});
    offset += flight->to[p];
  }
  in.slots = nn::lay_out(streams, per_peer);
  in.flight = std::move(flight);
  return in;
}

void Ulysses::launch(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers& in) {
  auto& flight = static_cast<UlyssesFlight&>(*in.flight);
  in.slots.clear();
  const int64_t row = flight.batch * in.heads[group_.rank()].size * flight.width;
  for (int r = 0; r < group_.size(); ++r)
    flight.from.push_back((flight.asking[r] + 2 * flight.tokens[r]) * row);
  flight.arrived = at::empty({sum(flight.from)}, flight.sent.options());
  flight.work = group_.all_to_all(flight.arrived, flight.sent, flight.from, flight.to);
  ran_ = true;
}

nn::Qkv Ulysses::wait(const nn::CallContext& f, const nn::AttentionLayer& layer, nn::ExchangeBuffers& in) {
  auto& flight = static_cast<UlyssesFlight&>(*in.flight);
  flight.work.wait();
  const int64_t heads = in.heads[group_.rank()].size;
  std::vector<at::Tensor> q, kv;  // per rank
  int64_t offset = 0;
  for (int r = 0; r < group_.size(); ++r) {
    const int64_t asked = flight.asking[r] * flight.batch * heads * flight.width;
    q.push_back(
        flight.arrived.narrow(0, offset, asked).view({flight.asking[r], flight.batch, heads, flight.width}));
    kv.push_back(flight.arrived.narrow(0, offset + asked, flight.from[r] - asked)
                     .view({flight.tokens[r], flight.batch, 2, heads, flight.width}));
    offset += flight.from[r];
  }
  nn::Qkv all{joined(q, 0), joined(in_order(f, layer, kv), 0), {first_, group_.size(), f.patch}};
  flight.sent.reset();
  flight.arrived.reset();
  return all;
}

at::Tensor Ulysses::scatter_back(const nn::CallContext&, const nn::AttentionLayer&, nn::ExchangeBuffers& in,
                                 at::Tensor out) {
  const auto& flight = static_cast<const UlyssesFlight&>(*in.flight);
  const int me = group_.rank();
  const int64_t mine = flight.asking[me];
  std::vector<int64_t> to, from;
  for (int p = 0; p < group_.size(); ++p) {
    to.push_back(flight.asking[p] * flight.batch * in.heads[me].size * flight.width);
    from.push_back(mine * flight.batch * in.heads[p].size * flight.width);
  }
  const auto send = out.contiguous();
  auto arrived = at::empty({sum(from)}, send.options());
  group_.all_to_all(arrived, send, from, to).wait();
  std::vector<at::Tensor> heads;
  int64_t offset = 0;
  for (int p = 0; p < group_.size(); ++p) {
    heads.push_back(
        arrived.narrow(0, offset, from[p]).view({mine, flight.batch, in.heads[p].size, flight.width}));
    offset += from[p];
  }
  return at::cat(heads, 2);
}

}  // namespace atelier::parallel
