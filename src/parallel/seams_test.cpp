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

// Bytes of a head do not depend on who makes them, and what is attended to them is of the model's type.
TEST(Strategies, MatchOneRankWithAttentionInE4m3) {
  const Toy toy{.heads = 4, .width = 16, .is_e4m3 = true};
  for (const Split s : {Split{1, 2, 1},
                        {3, 1, 1},
                        {1, 1, 2},
                        {2, 2, 1},
                        {2, 2, 2},
                        {1, 1, 1, 3},
                        {1, 2, 1, 2},
                        {2, 1, 1, 2},
                        {2, 2, 1, 2}}) {
    EXPECT_LT(error_of(toy, s), kExact) << name_of(s);
    auto stale = toy;
    stale.patches = 3, stale.steps = 4;
    EXPECT_LT(error_of(stale, s), kExact) << name_of(s);
    stale.warmup = 0;
    EXPECT_LT(error_of(stale, s), kExact) << name_of(s);
  }
  const c10::InferenceMode guard;
  EXPECT_GT(difference(alone(toy), alone({.heads = 4, .width = 16})), kVisible);
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
