// Every strategy against one rank in double, alone and combined, with uneven and empty parts; and planted
// faults, which must show.
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/where.h>

#include <cmath>

#include "nn/sdpa.h"
#include "parallel/kv_gather.h"
#include "parallel/parallel_context.h"
#include "parallel/ring.h"
#include "parallel/stale_kv.h"
#include "parallel/tensor.h"
#include "parallel/toy_for_test.h"
#include "parallel/ulysses.h"

namespace atelier::parallel::testing {
namespace {

constexpr double kExact = 1e-12;  // of the rms, in double
constexpr double kVisible = 1e-3;

struct Split {
  int ring = 1, ulysses = 1, tensor = 1, kv_gather = 1;
  int sequence() const { return ring * kv_gather * ulysses; }
};

std::string name_of(const Split& s) {
  return str("ring ", s.ring, " kv_gather ", s.kv_gather, " ulysses ", s.ulysses, " tensor ", s.tensor);
}

Start start_of(const Toy& toy) {
  return toy.warmup > 0 ? Start::kWarm : Start::kCold;
}

// The strategies of one rank, stacked by hand so that StaleKv can be had without stages.
struct Stack {
  std::vector<std::unique_ptr<comm::Comm>> groups;
  nn::Sdpa kernel;
  std::unique_ptr<StaleKv> stale;
  std::unique_ptr<Ring> ring;
  std::unique_ptr<nn::SequenceExchange> by_heads, exchange;
  std::unique_ptr<CommReducer> features;
  nn::Seams seams;
  plan::Mesh mesh;

  // under: stands directly around the kernel; may return null for none.
  Stack(const Toy& toy, const Split& s, comm::Transport& t,
        const std::function<nn::AttentionOp*(nn::AttentionOp&)>& under = {})
      : mesh({1, 1, 1, s.ring, s.kv_gather, s.ulysses, s.tensor}, t.rank()) {
    const auto open = [&](plan::Axis axis) {
      groups.push_back(t.open(mesh.peers({axis}), plan::axis_name(axis)));
      return groups.back().get();
    };
    auto* along_ring = open(plan::Axis::kRing);
    auto* along_ulysses = open(plan::Axis::kUlysses);
    auto* along_tensor = open(plan::Axis::kTensor);
    nn::AttentionOp* inner = under ? under(kernel) : nullptr;
    stale = std::make_unique<StaleKv>(inner ? *inner : kernel, start_of(toy));
    ring = std::make_unique<Ring>(*along_ring, *stale);
    exchange =
        std::make_unique<Ulysses>(*along_ulysses, mesh.sequence_rank() - mesh.index(plan::Axis::kUlysses));
    if (s.kv_gather > 1) gather(*open(plan::Axis::kGather), s);
    features = std::make_unique<CommReducer>(*along_tensor);
    seams = {.exchange = exchange.get(),
             .attention = ring.get(),
             .tensor_rank = mesh.index(plan::Axis::kTensor),
             .tensor_size = s.tensor,
             .features = features.get()};
  }

  void gather(comm::Comm& along, const Split& s) {
    by_heads = std::move(exchange);
    if (s.ulysses == 1) by_heads = std::make_unique<nn::LocalExchange>(mesh.sequence_rank());
    const int first = mesh.index(plan::Axis::kRing) * s.kv_gather * s.ulysses;
    exchange = std::make_unique<KvGather>(along, first, *by_heads, s.ulysses);
  }
};

at::Tensor alone(const Toy& toy) {
  const c10::InferenceMode guard;
  nn::Sdpa kernel;
  StaleKv stale(kernel, start_of(toy));
  nn::LocalExchange exchange;
  auto whole = at::zeros_like(toy.input(1));
  run_toy(toy, {.exchange = &exchange, .attention = &stale}, 1, 0, whole);
  return whole;
}

using Change = std::function<void(Stack&)>;

// Error of a split against one rank; `change` may put something else behind a seam.
double error_of(const Toy& toy, const Split& s, const Change& change = {},
                const std::function<nn::AttentionOp*(nn::AttentionOp&)>& under = {}) {
  const c10::InferenceMode guard;
  const auto expected = alone(toy);
  auto whole = at::full_like(expected, std::nan(""));
  std::mutex mutex;
  const auto failure = failure_of(s.sequence() * s.tensor, [&](comm::Transport& t) {
    Stack stack(toy, s, t, under);
    if (change) change(stack);
    auto mine = at::full_like(whole, std::nan(""));
    run_toy(toy, stack.seams, s.sequence(), stack.mesh.sequence_rank(), mine);
    const std::lock_guard lock(mutex);
    whole = at::where(mine.isnan(), whole, mine);
  });
  EXPECT_EQ(failure, "") << name_of(s);
  return failure.empty() ? difference(whole, expected) : INFINITY;
}

TEST(Strategies, MatchOneRankAloneAndCombined) {
  for (const Split s : {Split{1, 2, 1},
                        {1, 3, 1},
                        {2, 1, 1},
                        {3, 1, 1},
                        {1, 1, 2},
                        {1, 1, 5},
                        {2, 2, 1},
                        {3, 2, 1},
                        {1, 2, 2},
                        {2, 1, 3},
                        {2, 2, 2},
                        {1, 1, 1, 2},
                        {1, 1, 1, 3},
                        {1, 2, 1, 2},
                        {1, 3, 1, 2},
                        {2, 1, 1, 2},
                        {1, 1, 2, 2},
                        {2, 2, 1, 2},
                        {2, 2, 2, 2}}) {
    EXPECT_LT(error_of({}, s), kExact) << name_of(s);
  }
}

TEST(Strategies, MatchOneRankWithFewerHeadsAndTokensThanRanks) {
  for (const Split s :
       {Split{1, 4, 1}, {4, 1, 1}, {1, 2, 4}, {2, 4, 1}, {1, 1, 1, 7}, {1, 2, 1, 3}, {2, 1, 1, 4}}) {
    EXPECT_LT(error_of({.tokens = {1, 5}, .heads = 3}, s), kExact) << name_of(s);
    EXPECT_LT(error_of({.tokens = {0, 3}, .heads = 2}, s), kExact) << name_of(s);
  }
}

TEST(Strategies, MatchOneRankWhereOneStreamDoesNotAsk) {
  for (const Split s : {Split{1, 3, 1}, {2, 1, 1}, {2, 2, 1}, {1, 1, 1, 3}, {1, 2, 1, 2}, {2, 1, 1, 2}}) {
    EXPECT_LT(error_of({.last_asks_image_only = true}, s), kExact) << name_of(s);
  }
}

TEST(Strategies, StalePatchesMatchTheSameScheduleOnOneRank) {
  for (const Split s : {Split{1, 2, 1},
                        {2, 1, 1},
                        {3, 1, 1},
                        {2, 2, 1},
                        {1, 3, 2},
                        {1, 1, 1, 2},
                        {1, 1, 1, 3},
                        {1, 2, 1, 2},
                        {2, 1, 1, 2},
                        {2, 2, 1, 2}}) {
    EXPECT_LT(error_of({.patches = 3, .steps = 4}, s), kExact) << name_of(s);
    EXPECT_LT(error_of({.tokens = {2, 5}, .patches = 4, .steps = 3}, s), kExact) << name_of(s);
    EXPECT_LT(error_of({.patches = 3, .warmup = 0, .steps = 3}, s), kExact) << name_of(s);
  }
}

TEST(Strategies, StalePatchesDifferFromFreshOnes) {
  const c10::InferenceMode guard;
  const auto fresh = alone({.steps = 4});
  EXPECT_GT(difference(alone({.patches = 3, .steps = 4}), fresh), kVisible);
  EXPECT_LT(difference(alone({.patches = 3, .warmup = 4, .steps = 4}), fresh), kExact);
  EXPECT_LT(difference(alone({.patches = 1, .warmup = 1, .steps = 4}), fresh), kExact);
}

// ---- planted faults: the comparison above must see each of them

struct SwapPeers : nn::SequenceExchange {
  std::unique_ptr<nn::SequenceExchange> inner;
  nn::ExchangeBuffers buffers(const nn::CallContext& f, const nn::AttentionLayer& s,
                              std::span<const nn::Projected> p) override {
    auto in = inner->buffers(f, s, p);
    for (auto& stream : in.slots) std::swap(stream[0], stream[1]);
    return in;
  }
  void launch(const nn::CallContext& f, const nn::AttentionLayer& s, nn::ExchangeBuffers& in) override {
    inner->launch(f, s, in);
  }
  nn::Qkv wait(const nn::CallContext& f, const nn::AttentionLayer& s, nn::ExchangeBuffers& in) override {
    return inner->wait(f, s, in);
  }
  at::Tensor scatter_back(const nn::CallContext& f, const nn::AttentionLayer& s, nn::ExchangeBuffers& in,
                          at::Tensor out) override {
    return inner->scatter_back(f, s, in, out);
  }
};

TEST(PlantedFault, SwappedShardShows) {
  const Toy toy{.heads = 4};
  EXPECT_LT(error_of(toy, {1, 2, 1}), kExact);
  EXPECT_GT(error_of(toy, {1, 2, 1},
                     [](Stack& stack) {
                       auto faulty = std::make_unique<SwapPeers>();
                       faulty->inner = std::move(stack.exchange);
                       stack.seams.exchange = faulty.get();
                       stack.exchange = std::move(faulty);
                     }),
            kVisible);
}

struct WrongLse : nn::AttentionOp {
  nn::AttentionOp& next;
  explicit WrongLse(nn::AttentionOp& n) : next(n) {}
  nn::AttentionOutput run(const nn::CallContext& f, const nn::AttentionLayer& s, nn::KvExtent held,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) override {
    auto a = next.run(f, s, held, q, kv, lse);
    a.lse = a.lse + 0.1 * held.first;
    return a;
  }
};

TEST(PlantedFault, WrongMergeWeightShows) {
  std::mutex mutex;
  std::vector<std::unique_ptr<WrongLse>> faulty;
  const auto plant = [&](nn::AttentionOp& kernel) -> nn::AttentionOp* {
    const std::lock_guard lock(mutex);
    return faulty.emplace_back(std::make_unique<WrongLse>(kernel)).get();
  };
  EXPECT_GT(error_of({}, {2, 1, 1}, {}, plant), kVisible);
}

struct NoSum : nn::Reducer {
  void sum(at::Tensor&) override {}
};

TEST(PlantedFault, MissingSumShows) {
  NoSum none;
  EXPECT_GT(error_of({}, {1, 1, 2}, [&](Stack& stack) { stack.seams.features = &none; }), kVisible);
}

// ---- properties of single seams

// q, k, v of n tokens; what a decorator passes on is what the spy sees.
struct Spy : nn::AttentionOp {
  nn::Sdpa kernel;
  at::Tensor seen;
  const void* place = nullptr;  // of what was seen
  nn::AttentionOutput run(const nn::CallContext& f, const nn::AttentionLayer& s, nn::KvExtent held,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) override {
    seen = kv.clone();
    place = kv.const_data_ptr();
    return kernel.run(f, s, held, q, kv, lse);
  }
};

// Never lets a patch's keys reach the buffer.
struct Frozen : nn::AttentionOp {
  nn::AttentionOp& next;
  std::map<int, at::Tensor> old;
  explicit Frozen(nn::AttentionOp& n) : next(n) {}
  nn::AttentionOutput run(const nn::CallContext& f, const nn::AttentionLayer& s, nn::KvExtent held,
                          const at::Tensor& q, const at::Tensor& kv, nn::Lse lse) override {
    if (held.patch && !old.contains(*held.patch)) old[*held.patch] = at::zeros_like(kv);
    return next.run(f, s, held, q, held.patch ? old[*held.patch] : kv, lse);
  }
};

// Runs whole pass and patches in a shuffled order; true if after each patch exactly its slots hold its fresh
// keys and all others what they held before.
bool patches_replace_their_slots(nn::AttentionOp& op, const Spy& spy) {
  nn::CallContext f{.patch = std::nullopt,
                    .streams = {{.patches = {3, 3}, .seq_parts = 2, .pinned_to_first_patch = true},
                                {.patches = {11, 3}, .seq_parts = 2}}};
  const nn::AttentionLayer layer{0, "a", {0, 1}, {0, 1}, {2, 4}};
  const nn::KvExtent held{0, 2, std::nullopt};
  const auto whole = noise({14, 1, 2, 2, 4}, 5);
  op.run(f, layer, held, noise({14, 1, 2, 4}, 6), whole, nn::Lse::kNone);
  at::Tensor expected;
  std::vector<int64_t> begins;
  int64_t begin = 0;
  for (int p = 0; p < 3; ++p) {
    begins.push_back(begin);
    for (int r = 0; r < 2; ++r) begin += f.tokens(layer.streams, r, p);
  }
  bool right = true;
  uint64_t seed = 7;
  for (const int p : {0, 1, 2, 2, 0, 1}) {
    f.patch = p;
    const int64_t n = (p < 2 ? begins[static_cast<size_t>(p) + 1] : 14) - begins[static_cast<size_t>(p)];
    const auto fresh = noise({n, 1, 2, 2, 4}, seed++);
    op.run(f, layer, {0, 2, p}, noise({n, 1, 2, 4}, 6), fresh, nn::Lse::kNone);
    if (expected.defined()) {
      expected.narrow(0, begins[static_cast<size_t>(p)], n).copy_(fresh);
      right = right && spy.seen.equal(expected);
    } else {
      right = right && spy.seen.narrow(0, 0, n).equal(fresh);
      expected = spy.seen.clone();
    }
  }
  return right;
}

TEST(StaleKv, AfterAPatchItsSlotsHoldFreshKeys) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  EXPECT_TRUE(patches_replace_their_slots(stale, spy));
}

TEST(PlantedFault, StaleBufferThatIsNeverUpdatedShows) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  Frozen faulty(stale);
  EXPECT_FALSE(patches_replace_their_slots(faulty, spy));
}

TEST(StaleKv, KeepsBranchesAndHoldersApartAtFixedAddresses) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  const nn::AttentionLayer layer{3, "a", {0}, {0}, {1, 2}};
  nn::CallContext f{.patch = std::nullopt, .streams = {{.patches = {4, 2}, .seq_parts = 2}}};
  const auto run = [&](int branch, int first, std::optional<int> patch, double value) {
    f.branch = branch, f.patch = patch;
    const int64_t n = patch ? 1 : 2;
    const auto kv = at::full({n, 1, 2, 1, 2}, value, at::TensorOptions(at::kDouble));
    stale.run(f, layer, {first, 1, patch}, kv.select(2, 0), kv, nn::Lse::kNone);
    return std::pair(spy.seen[0].flatten()[0].item<double>(), spy.seen[1].flatten()[0].item<double>());
  };
  for (const int branch : {0, 1}) {
    for (const int first : {0, 1}) run(branch, first, std::nullopt, 10 * branch + first);
  }
  EXPECT_EQ(run(1, 1, 0, 5), std::pair(5.0, 11.0));
  EXPECT_EQ(run(1, 0, 1, 6), std::pair(10.0, 6.0));
  EXPECT_EQ(run(0, 1, 1, 7), std::pair(1.0, 7.0));
  EXPECT_EQ(stale.bytes(0), 4 * 2 * 4 * 8);
}

TEST(StaleKv, RefusesAPatchBeforeTheWarmUpOfItsRequest) {
  const c10::InferenceMode guard;
  nn::Sdpa kernel;
  StaleKv stale(kernel);
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {1, 2}};
  nn::CallContext f{.patch = 0, .streams = {{.patches = {2, 2}}}};
  const auto one = noise({1, 1, 2, 1, 2}, 1), two = noise({2, 1, 2, 1, 2}, 1);
  const auto patch = [&] { stale.run(f, layer, {0, 1, 0}, one.select(2, 0), one, nn::Lse::kNone); };
  EXPECT_THROW(patch(), std::logic_error);
  stale.run(f, layer, {0, 1, std::nullopt}, two.select(2, 0), two, nn::Lse::kNone);
  EXPECT_NO_THROW(patch());
  stale.begin_request(0);
  EXPECT_THROW(patch(), std::logic_error);
  stale.ran_whole(0);
  EXPECT_NO_THROW(patch()) << "a recorded graph fills the slots without a call";
}

TEST(StaleKv, EveryKeptShapeHasSlotsOfItsOwn) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy);
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {1, 2}};
  const auto run = [&](int buffers, std::optional<int> patch, double value) {
    const nn::CallContext f{.patch = patch, .streams = {{.patches = {2, 2}}}, .buffers = buffers};
    const auto kv = at::full({patch ? 1 : 2, 1, 2, 1, 2}, value, at::TensorOptions(at::kDouble));
    stale.run(f, layer, {0, 1, patch}, kv.select(2, 0), kv, nn::Lse::kNone);
    return std::pair(spy.place, spy.seen[1].flatten()[0].item<double>());
  };
  run(1, std::nullopt, 10), run(2, std::nullopt, 20);
  const auto first = run(1, 0, 1), second = run(2, 0, 2);
  EXPECT_EQ(first.second, 10);
  EXPECT_EQ(second.second, 20);
  stale.begin_request(2);
  EXPECT_EQ(run(1, 0, 3), first) << "where and what it was";
  stale.forget(1);
  EXPECT_EQ(stale.bytes(1), 0);
  EXPECT_GT(stale.bytes(2), 0);
}

TEST(StaleKv, AColdStartAttendsToThePatchesThatHaveCome) {
  const c10::InferenceMode guard;
  Spy spy;
  StaleKv stale(spy, Start::kCold);
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {1, 2}};
  nn::CallContext f{.patch = 0, .streams = {{.patches = {6, 3}}}};
  const auto seen_after = [&](int patch, double value) {
    f.patch = patch;
    const auto kv = at::full({2, 1, 2, 1, 2}, value, at::TensorOptions(at::kDouble));
    stale.run(f, layer, {0, 1, patch}, kv.select(2, 0), kv, nn::Lse::kNone);
    std::vector<double> firsts;
    for (int64_t i = 0; i < spy.seen.size(0); i += 2)
      firsts.push_back(spy.seen[i].flatten()[0].item<double>());
    return firsts;
  };
  EXPECT_THROW(seen_after(1, 1), std::logic_error) << "patch 0 comes first";
  for (const double request : {10.0, 20.0}) {
    stale.begin_request(0);
    EXPECT_EQ(seen_after(0, request), (std::vector{request}));
    EXPECT_EQ(seen_after(1, request + 1), (std::vector{request, request + 1}));
    EXPECT_EQ(seen_after(2, request + 2), (std::vector{request, request + 1, request + 2}));
    EXPECT_EQ(seen_after(0, request + 3), (std::vector{request + 3, request + 1, request + 2}));
  }
}

TEST(Ring, MergesBlocksWithoutKeys) {
  const c10::InferenceMode guard;
  nn::Sdpa kernel;
  const auto q = noise({3, 2, 2, 4}, 1), kv = noise({5, 2, 2, 2, 4}, 2);
  const auto run = [&](int64_t begin, int64_t n) {
    return kernel.run({}, {}, {}, q, kv.narrow(0, begin, n), nn::Lse::kNeeded);
  };
  const auto whole = run(0, 5);
  for (const int64_t first : {0, 1, 5}) {
    auto all = run(0, first);
    all.out = all.out.clone();
    merge_(all, run(0, 0));
    merge_(all, run(first, 5 - first));
    EXPECT_LT(difference(all.out, whole.out), kExact) << first;
    EXPECT_LT(difference(all.lse, whole.lse), kExact) << first;
  }
  auto nothing = run(0, 0);
  merge_(nothing, run(0, 0));
  EXPECT_EQ(nothing.out.abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace atelier::parallel::testing
