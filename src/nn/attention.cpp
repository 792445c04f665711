#include "nn/attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/square.h>

#include "base/check.h"
#include "kernels/kernels.h"
#include "nn/launch_target.h"

namespace atelier::nn {
namespace {

kernels::Source source_of(const at::Tensor& t) {
  if (!t.defined()) return {};
  ENSURE(t.stride(3) == 1 || t.size(3) <= 1);
  return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2)};
}

kernels::Norm kind_of(const HeadNorm* n) {
  if (!n) return kernels::Norm::kNone;
  return n->kind == HeadNorm::NormKind::kRms ? kernels::Norm::kRms : kernels::Norm::kLayer;
}

const char* advance(const void* base, int64_t elements, int64_t bytes) {
  return base ? static_cast<const char*>(base) + elements * bytes : nullptr;
}

// The same placement for tokens [begin, end) only.
kernels::Placement slice(const kernels::Placement& all, std::vector<kernels::Target>& targets,
                         std::vector<void*>& copies, int64_t begin, int64_t end, int64_t bytes,
                         int64_t placed_bytes, int64_t rope_bytes) {
  kernels::Placement part = all;
  part.n = end - begin;
  for (auto* s : {&part.q, &part.k, &part.v}) s->data = advance(s->data, begin * s->token_stride, bytes);
  const int64_t half = all.head_dim / 2;
  part.cos = reinterpret_cast<const float*>(advance(all.cos, begin * half, rope_bytes));
  part.sin = reinterpret_cast<const float*>(advance(all.sin, begin * half, rope_bytes));
  for (auto& t : targets) {
    const int64_t row = all.batch * t.heads * all.head_dim * placed_bytes;
    if (t.q) t.q = static_cast<char*>(t.q) + begin * row;
    if (t.kv) t.kv = static_cast<char*>(t.kv) + 2 * begin * row;
  }
  const int64_t all_heads = all.batch * all.heads * all.head_dim * placed_bytes;
  for (void*& copy : copies) copy = static_cast<char*>(copy) + 2 * begin * all_heads;
  part.targets = targets;
  part.kv_copies = copies;
  return part;
}

constexpr int64_t kWidestHead = 256;  // of the placing kernel

at::Tensor normalised(const at::Tensor& heads, const HeadNorm* norm) {
  if (!norm || !heads.defined()) return heads;
  auto x = heads.scalar_type() == at::kDouble ? heads : heads.to(at::kFloat);
  if (norm->kind == HeadNorm::NormKind::kLayer) x = x - x.mean(-1, true);
  x = x * (x.square().mean(-1, true) + norm->eps).rsqrt();
  if (norm->weight.defined()) x = x * norm->weight;
  return norm->bias.defined() ? x + norm->bias : x;
}

// Heads of widths that the placing kernel does not have: odd ones have no rope.
void copy(const Projected& given, std::span<const ProjectionSlot> slots, std::span<const Range> heads) {
  ENSURE(!given.rope);
  const Projected p{normalised(given.q, given.norm_q), normalised(given.k, given.norm_k), given.v};
  for (size_t r = 0; r < slots.size(); ++r) {
    const auto of_peer = [&](const at::Tensor& t) { return t.narrow(2, heads[r].begin, heads[r].size); };
    if (p.q.defined()) at::Tensor(slots[r].q).copy_(of_peer(p.q));
    if (p.k.defined()) slots[r].kv.select(2, 0).copy_(of_peer(p.k));
    if (p.v.defined()) slots[r].kv.select(2, 1).copy_(of_peer(p.v));
    for (const at::Tensor& kv : slots[r].kv_copies) {
      if (p.k.defined()) kv.select(2, 0).copy_(p.k);
      if (p.v.defined()) kv.select(2, 1).copy_(p.v);
    }
  }
}

// All are of one type: the projection's, or e4m3.
bool are_e4m3(std::span<const ProjectionSlot> slots, const at::Tensor& projected) {
  bool some = false;
  for (const ProjectionSlot& slot : slots) {
    for (const at::Tensor* t : {&slot.q, &slot.kv}) {
      if (!t->defined()) continue;
      const bool is_e4m3 = t->scalar_type() == at::kFloat8_e4m3fn;
      ENSURE(is_e4m3 || t->scalar_type() == projected.scalar_type());
      some = some || is_e4m3;
    }
  }
  return some;
}

struct AloneFlight : ExchangeBuffers::Flight {
  ProjectionSlot buffer;
};

}  // namespace

at::TensorOptions AttentionLayer::operands(const at::Tensor& projected) const {
  return is_e4m3 ? projected.options().dtype(at::kFloat8_e4m3fn) : projected.options();
}

at::ScalarType AttentionLayer::attended_type(const at::Tensor& q) const {
  ENSURE(is_e4m3 == (q.scalar_type() == at::kFloat8_e4m3fn));
  return is_e4m3 ? model_type : q.scalar_type();
}

void place(const Projected& p, std::span<const ProjectionSlot> slots, std::span<const Range> heads) {
  const auto& any = p.k.defined() ? p.k : p.q;  // sizes are the same
  if (any.size(0) == 0) return;
  if (any.size(3) > kWidestHead || any.size(3) % 2 != 0) return copy(p, slots, heads);
  std::vector<kernels::Target> targets;
  for (size_t r = 0; r < slots.size(); ++r) {
    const auto data = [](const at::Tensor& t) { return t.defined() ? t.data_ptr() : nullptr; };
    targets.push_back({data(slots[r].q), data(slots[r].kv), heads[r].begin, heads[r].size});
  }
  kernels::Placement all{.q = source_of(p.q), .k = source_of(p.k), .v = source_of(p.v)};
  all.norm_q = kind_of(p.norm_q);
  all.norm_k = kind_of(p.norm_k);
  if (p.norm_q)
    all.weight_q = data_of(p.norm_q->weight), all.bias_q = data_of(p.norm_q->bias), all.eps_q = p.norm_q->eps;
  if (p.norm_k)
    all.weight_k = data_of(p.norm_k->weight), all.bias_k = data_of(p.norm_k->bias), all.eps_k = p.norm_k->eps;
  if (p.rope) {
    ENSURE(p.rope->cos.size(0) == any.size(0));
    all.cos = static_cast<const float*>(data_of(p.rope->cos));
    all.sin = static_cast<const float*>(data_of(p.rope->sin));
  }
  all.n = any.size(0), all.batch = any.size(1), all.heads = any.size(2), all.head_dim = any.size(3);
  std::vector<void*> copies;
  for (const ProjectionSlot& slot : slots) {
    ENSURE(slot.kv_copies.empty() || slots.size() == 1);
    for (const at::Tensor& kv : slot.kv_copies) copies.push_back(kv.data_ptr());
  }
  all.targets = targets;
  all.kv_copies = copies;
  all.is_e4m3 = are_e4m3(slots, any);
  const auto where = launch_target_of(any);
  const auto type = dtype_of(any);
  if (where.cuda) return kernels::place(where, type, all);
  const int64_t bytes = any.element_size(), rope_bytes = any.scalar_type() == at::kDouble ? 8 : 4;
  const int64_t placed_bytes = all.is_e4m3 ? 1 : bytes;
  at::parallel_for(0, all.n, grain(all.batch * all.heads * all.head_dim), [&](int64_t begin, int64_t end) {
    auto mine = targets;
    auto also = copies;
    kernels::place(where, type, slice(all, mine, also, begin, end, bytes, placed_bytes, rope_bytes));
  });
}

Projected split_qkv(const at::Tensor& fused, int64_t head_dim, const HeadNorm& q, const HeadNorm& k,
                    const Rope& rope) {
  const auto t = fused.unflatten(-1, {3, -1, head_dim});
  return {t.select(2, 0), t.select(2, 1), t.select(2, 2), &q, &k, &rope};
}

std::vector<std::vector<ProjectionSlot>> lay_out(std::span<const Projected> streams,
                                                 std::span<const ProjectionSlot> per_peer) {
  std::vector<std::vector<ProjectionSlot>> slots;
  int64_t q0 = 0, k0 = 0;
  for (const Projected& p : streams) {
    const int64_t n = p.k.size(0);
    auto& row = slots.emplace_back();
    for (const ProjectionSlot& peer : per_peer) {
      row.push_back({p.q.defined() ? peer.q.narrow(0, q0, n) : at::Tensor(), peer.kv.narrow(0, k0, n)});
    }
    k0 += n;
    if (p.q.defined()) q0 += n;
  }
  return slots;
}

namespace {

void place_piece(const Projected& p, Range tokens, std::span<const ProjectionSlot> slots,
                 std::span<const Range> heads) {
  const auto cut = [&](const at::Tensor& t) {
    return t.defined() ? t.narrow(0, tokens.begin, tokens.size) : t;
  };
  Projected piece{cut(p.q), cut(p.k), cut(p.v), p.norm_q, p.norm_k, p.rope};
  Rope rope;
  if (p.rope) {
    rope = {cut(p.rope->cos), cut(p.rope->sin)};
    piece.rope = &rope;
  }
  place(piece, slots, heads);
}

}  // namespace

Attention::PendingAttention Attention::begin(const AttentionLayer& layer, const CallContext& f,
                                             std::span<const Projected> streams) const {
  ENSURE(exchange_ && op_);
  ExchangeBuffers in = exchange_->buffers(f, layer, streams);
  if (in.pieces.empty()) {
    for (size_t i = 0; i < streams.size(); ++i) place(streams[i], in.slots[i], in.heads);
  }
  for (size_t i = 0; i < in.pieces.size(); ++i)
    place_piece(streams[in.pieces[i].projection], in.pieces[i].tokens, in.slots[i], in.heads);
  exchange_->launch(f, layer, in);
  return {f, layer, std::move(in)};
}

at::Tensor Attention::finish(PendingAttention p) const {
  const CallContext& f = *p.call_;
  const AttentionLayer& layer = *p.layer_;
  const Qkv a = exchange_->wait(f, layer, p.buffers_);
  const AttentionOutput o = op_->run(f, layer, a.held, a.q, a.kv, Lse::kNone);
  return exchange_->scatter_back(f, layer, p.buffers_, o.out).flatten(2);
}

ExchangeBuffers LocalExchange::buffers(const CallContext& f, const AttentionLayer& layer,
                                       std::span<const Projected> streams) {
  const auto& k = streams[0].k;
  int64_t n = 0, asking = 0;
  for (const auto& p : streams) n += p.k.size(0), asking += p.q.defined() ? p.q.size(0) : 0;
  ENSURE(n == f.tokens(layer.streams, seq_rank_, f.patch));
  auto flight = std::make_unique<AloneFlight>();
  flight->buffer = {at::empty({asking, k.size(1), k.size(2), k.size(3)}, layer.operands(k)),
                    at::empty({n, k.size(1), 2, k.size(2), k.size(3)}, layer.operands(k))};
  ExchangeBuffers in;
  in.heads = {{0, k.size(2)}};
  in.slots = lay_out(streams, std::span(&flight->buffer, 1));
  in.flight = std::move(flight);
  return in;
}

Qkv LocalExchange::wait(const CallContext& f, const AttentionLayer&, ExchangeBuffers& in) {
  const auto& buffer = static_cast<AloneFlight&>(*in.flight).buffer;
  return {buffer.q, buffer.kv, {seq_rank_, 1, f.patch}};
}

}  // namespace atelier::nn
