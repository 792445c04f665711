#include "parallel/ulysses_stores.h"

#include <c10/util/accumulate.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"

namespace atelier::parallel {
namespace {

constexpr int64_t kLeastWindow = 1 << 20;  // bytes
constexpr int64_t kAligned = 256;          // bytes: where tensors in a window begin

int64_t aligned(int64_t bytes) {
  return (bytes + kAligned - 1) / kAligned * kAligned;
}

// Who holds what in one exchange; every rank computes the same.
struct Shares {
  std::vector<Range> heads;             // per rank
  std::vector<int64_t> asking, tokens;  // per rank, of all streams
  int64_t all_asking = 0, all_tokens = 0;
  int64_t batch = 0, all_heads = 0, width = 0;
  at::ScalarType type = at::kFloat;

  // A rank's window: q [all that ask, B, its heads, d], kv [all, B, 2, its heads, d], out [its own that ask, B, all
  // heads, d]; each begins at a multiple of kAligned.
  int64_t bytes_of(int64_t numbers) const {
    return aligned(numbers * batch * width * static_cast<int64_t>(c10::elementSize(type)));
  }
  int64_t kv_begin(int rank) const { return bytes_of(all_asking * heads_of(rank)); }
  int64_t out_begin(int rank) const { return kv_begin(rank) + bytes_of(2 * all_tokens * heads_of(rank)); }
  int64_t end(int rank) const { return out_begin(rank) + bytes_of(asking[at(rank)] * all_heads); }
  int64_t most() const {
    int64_t bytes = 0;
    for (size_t r = 0; r < heads.size(); ++r) bytes = std::max(bytes, end(static_cast<int>(r)));
    return bytes;
  }
  int64_t heads_of(int rank) const { return heads[at(rank)].size; }

  at::Tensor q(const comm::Window& w, int rank) const {
    return view(w.peer(rank), 0, {all_asking, batch, heads_of(rank), width});
  }
  at::Tensor kv(const comm::Window& w, int rank) const {
    return view(w.peer(rank), kv_begin(rank), {all_tokens, batch, 2, heads_of(rank), width});
  }
  at::Tensor out(const comm::Window& w, int rank) const {
    return view(w.peer(rank), out_begin(rank), {asking[at(rank)], batch, all_heads, width});
  }

 private:
  static size_t at(int rank) { return static_cast<size_t>(rank); }
  at::Tensor view(const at::Tensor& bytes, int64_t begin, at::IntArrayRef sizes) const {
    const int64_t size = c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(type));
    return bytes.narrow(0, begin, size).view(type).view(sizes);
  }
};

Shares shares_of(const nn::CallContext& f, const nn::AttentionLayer& layer, const at::Tensor& k, int ranks,
                 int first) {
  Shares s;
  s.batch = k.size(1), s.all_heads = layer.heads.count, s.width = k.size(3), s.type = k.scalar_type();
  for (int r = 0; r < ranks; ++r) {
    s.heads.push_back(Partition{layer.heads.count, ranks}[r]);
    s.asking.push_back(f.tokens(layer.query_streams, first + r, f.patch));
    s.tokens.push_back(f.tokens(layer.streams, first + r, f.patch));
    s.all_asking += s.asking.back(), s.all_tokens += s.tokens.back();
  }
  return s;
}

// Where this rank's keys of each stream go among all: in the order of one rank, stream by stream; with patches, whose
// stale keys are kept so, rank by rank.
std::vector<int64_t> key_places(const nn::CallContext& f, const nn::AttentionLayer& layer, const Shares& s,
                                int me, int first) {
  const bool has_patches = std::any_of(f.streams.begin(), f.streams.end(),
                                       [](const nn::Layout& l) { return l.patches.parts > 1; });
  const auto count = [&](int stream, int rank) {
    return f.tokens(std::span(&stream, 1), first + rank, f.patch);
  };
  std::vector<int64_t> places;
  int64_t at = has_patches ? std::accumulate(s.tokens.begin(), s.tokens.begin() + me, int64_t{0}) : 0;
  for (const int stream : layer.streams) {
    int64_t before = 0, behind = 0;
    for (int r = 0; !has_patches && r < std::ssize(s.tokens); ++r) {
      if (r < me) before += count(stream, r);
      if (r > me) behind += count(stream, r);
    }
    places.push_back(at + before);
    at += before + count(stream, me) + behind;
  }
  return places;
}

// In accesses of 16 bytes where a head is made of them: the library copies strided numbers one by one.
void store(const at::Tensor& to, const at::Tensor& from) {
  const int64_t bytes = from.size(-1) * static_cast<int64_t>(from.element_size());
  if (bytes % 16 == 0 && from.is_contiguous()) {
    to.view(at::kComplexDouble).copy_(from.view(at::kComplexDouble));
  } else {
    to.copy_(from);
  }
}

struct StoresFlight : nn::ExchangeBuffers::Flight {
  Shares shares;
  comm::Window* window;
  bool& is_busy;
  StoresFlight(Shares s, comm::Window* w, bool& busy) : shares(std::move(s)), window(w), is_busy(busy) {
    is_busy = true;
  }
  ~StoresFlight() override { is_busy = false; }
  StoresFlight(const StoresFlight&) = delete;
  StoresFlight& operator=(const StoresFlight&) = delete;
};

StoresFlight* stores_of(nn::ExchangeBuffers& in) {
  return dynamic_cast<StoresFlight*>(in.flight.get());
}

}  // namespace

comm::Window* UlyssesStores::window(int64_t bytes) {
  for (const auto& w : windows_) {
    if (w->local().numel() >= bytes) return w.get();
  }
  if (has_none_) return nullptr;
  const auto room = std::bit_ceil(static_cast<uint64_t>(std::max(bytes, kLeastWindow)));
  auto opened = group_.window(static_cast<int64_t>(room));
  has_none_ = !opened;
  if (has_none_) return nullptr;
  windows_.push_back(std::move(opened));
  return windows_.back().get();
}

nn::ExchangeBuffers UlyssesStores::buffers(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                           std::span<const nn::Projected> streams) {
  const auto& k = streams[0].k;
  if (is_busy_ || (where_ == Where::kCuda && !k.is_cuda())) return otherwise_.buffers(f, layer, streams);
  const int me = group_.rank();
  auto s = shares_of(f, layer, k, group_.size(), first_);
  auto* const w = window(s.most());
  if (!w) return otherwise_.buffers(f, layer, streams);

  nn::ExchangeBuffers in;
  in.heads = s.heads;
  const auto places = key_places(f, layer, s, me, first_);
  int64_t asked = std::accumulate(s.asking.begin(), s.asking.begin() + me, int64_t{0});
  for (size_t i = 0; i < streams.size(); ++i) {
    const auto& p = streams[i];
    const int64_t n = p.k.size(0);
    auto& slots = in.slots.emplace_back();
    for (int peer = 0; peer < group_.size(); ++peer) {
      slots.push_back({p.q.defined() ? s.q(*w, peer).narrow(0, asked, n) : at::Tensor(),
                       s.kv(*w, peer).narrow(0, places[i], n)});
    }
    if (p.q.defined()) asked += n;
  }
  in.flight = std::make_unique<StoresFlight>(std::move(s), w, is_busy_);
  return in;
}

void UlyssesStores::launch(const nn::CallContext& f, const nn::AttentionLayer& layer,
                           nn::ExchangeBuffers& in) {
  auto* const flight = stores_of(in);
  if (!flight) return otherwise_.launch(f, layer, in);
  in.slots.clear();
  flight->window->barrier();
  ran_ = true;
}

nn::Qkv UlyssesStores::wait(const nn::CallContext& f, const nn::AttentionLayer& layer,
                            nn::ExchangeBuffers& in) {
  const auto* const flight = stores_of(in);
  if (!flight) return otherwise_.wait(f, layer, in);
  const int me = group_.rank();
  return {flight->shares.q(*flight->window, me),
          flight->shares.kv(*flight->window, me),
          {first_, group_.size(), f.patch}};
}

at::Tensor UlyssesStores::scatter_back(const nn::CallContext& f, const nn::AttentionLayer& layer,
                                       nn::ExchangeBuffers& in, at::Tensor out) {
  const auto* const flight = stores_of(in);
  if (!flight) return otherwise_.scatter_back(f, layer, in, std::move(out));
  const auto& s = flight->shares;
  const Range mine = s.heads[static_cast<size_t>(group_.rank())];
  int64_t from = 0;
  for (int peer = 0; peer < group_.size(); ++peer) {
    const int64_t n = s.asking[static_cast<size_t>(peer)];
    if (n > 0 && mine.size > 0)
      store(s.out(*flight->window, peer).narrow(2, mine.begin, mine.size), out.narrow(0, from, n));
    from += n;
  }
  flight->window->barrier();
  return s.out(*flight->window, group_.rank());
}

}  // namespace atelier::parallel
