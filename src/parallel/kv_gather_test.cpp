// Keys and values of all ranks on each of them: their order, their bits, when each of the two gathers starts,
// and faults that must show.
#include "parallel/kv_gather.h"

#include <atomic>

#include "nn/sdpa.h"
#include "parallel/comm_for_test.h"
#include "parallel/toy_for_test.h"
#include "parallel/ulysses.h"

namespace atelier::parallel::testing {
namespace {

// What the ranks of a group gather, in the order of the calls.
struct GathersSeen : PassedOn {
  std::vector<at::Tensor> sent;
  explicit GathersSeen(comm::Comm& group) : PassedOn(group) {}
  comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
    sent.push_back(mine.clone());
    return PassedOn::all_gather(out, mine, split);
  }
};

// Two streams of one request, each cut over `ranks` sequence ranks.
struct TwoStreams {
  int64_t heads = 3;
  at::Tensor text = noise({5, 2, 3, heads, 4}, 1), image = noise({8, 2, 3, heads, 4}, 2);
  nn::CallContext call(int ranks, int rank, int patches = 1) const {
    return {.patch = std::nullopt,
            .streams = {{.patches = {5, patches}, .seq_parts = ranks, .pinned_to_first_patch = true},
                        {.patches = {8, patches}, .seq_parts = ranks}},
            .seq_rank = rank};
  }
  nn::AttentionLayer layer() const { return {0, "a", {0, 1}, {0, 1}, {heads, 4}}; }
  std::vector<nn::Projected> held(const nn::CallContext& f) const {
    std::vector<nn::Projected> out;
    for (const auto* whole : {&text, &image}) {
      const auto part = cut(*whole, f.streams[out.size()].held(f.seq_rank, f.patch));
      out.push_back({part.select(2, 0), part.select(2, 1), part.select(2, 2)});
    }
    return out;
  }
  at::Tensor keys_and_values() const { return at::cat({text, image}).narrow(2, 1, 2); }
};

void place_all(const std::vector<nn::Projected>& streams, nn::ExchangeBuffers& in) {
  for (size_t s = 0; s < streams.size(); ++s) nn::place(streams[s], in.slots[s], in.heads);
}

TEST(KvGather, KeysArriveInTheOrderOfOneRankAndQueriesStay) {
  const TwoStreams all;
  const auto failure = failure_of(3, [&](comm::Transport& t) {
    const int ranks[] = {0, 1, 2};
    const auto group = t.open(ranks, "kv_gather");
    nn::LocalExchange alone(t.rank());
    KvGather exchange(*group, 0, alone, 1);
    const auto f = all.call(3, t.rank());
    const auto mine = all.held(f);
    // Two layers in flight at once.
    auto first = exchange.buffers(f, all.layer(), mine), second = exchange.buffers(f, all.layer(), mine);
    for (auto* in : {&first, &second}) {
      place_all(mine, *in);
      exchange.launch(f, all.layer(), *in);
    }
    for (auto* in : {&first, &second}) {
      const auto a = exchange.wait(f, all.layer(), *in);
      EXPECT_TRUE(a.kv.equal(all.keys_and_values()));
      EXPECT_TRUE(a.q.equal(at::cat({mine[0].q, mine[1].q})));
      EXPECT_EQ(a.held.first, 0);
      EXPECT_EQ(a.held.count, 3);
      EXPECT_TRUE(exchange.scatter_back(f, all.layer(), *in, a.q).equal(a.q)) << "no way back";
    }
    EXPECT_TRUE(exchange.ran());
  });
  EXPECT_EQ(failure, "");
}

TEST(KvGather, KeysOfUlyssesGroupsArriveInTheOrderOfOneRank) {
  const TwoStreams all;
  const auto failure = failure_of(4, [&](comm::Transport& t) {
    const int g = t.rank() / 2, u = t.rank() % 2;
    const int beside[] = {2 * g, 2 * g + 1}, across[] = {u, 2 + u};
    const auto heads = t.open(beside, "ulysses"), group = t.open(across, "kv_gather");
    Ulysses ulysses(*heads, 2 * g);
    KvGather exchange(*group, 0, ulysses, 2);
    const auto f = all.call(4, t.rank());
    const auto mine = all.held(f);
    auto in = exchange.buffers(f, all.layer(), mine);
    place_all(mine, in);
    exchange.launch(f, all.layer(), in);
    const auto a = exchange.wait(f, all.layer(), in);
    const Range h = Partition{all.heads, 2}[u];
    EXPECT_TRUE(a.kv.equal(all.keys_and_values().narrow(3, h.begin, h.size)));
    EXPECT_EQ(a.held.count, 4);
  });
  EXPECT_EQ(failure, "");
}

// As stale keys are kept: rank by rank.
TEST(KvGather, PatchesStayRankByRank) {
  const TwoStreams all;
  const auto failure = failure_of(2, [&](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "kv_gather");
    nn::LocalExchange alone(t.rank());
    KvGather exchange(*group, 0, alone, 1);
    for (const std::optional<int> patch : {std::optional<int>(), std::optional(0), std::optional(1)}) {
      auto f = all.call(2, t.rank(), 2);
      f.patch = patch;
      const auto mine = all.held(f);
      auto in = exchange.buffers(f, all.layer(), mine);
      place_all(mine, in);
      exchange.launch(f, all.layer(), in);
      const auto a = exchange.wait(f, all.layer(), in);
      std::vector<at::Tensor> keys;
      for (int r = 0; r < 2; ++r) {
        auto theirs = f;
        theirs.seq_rank = r;
        for (const auto& p : all.held(theirs)) keys.push_back(p.k);
      }
      EXPECT_TRUE(a.kv.select(2, 0).equal(at::cat(keys)));
      EXPECT_EQ(a.held.patch, patch);
    }
  });
  EXPECT_EQ(failure, "");
}

// Values need neither norm nor rope: they leave before the kernel that makes the keys.
TEST(KvGather, ValuesLeaveFirst) {
  const TwoStreams all;
  const auto failure = failure_of(2, [&](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "kv_gather");
    GathersSeen seen(*group);
    nn::LocalExchange alone(t.rank());
    KvGather exchange(seen, 0, alone, 1);
    const auto f = all.call(2, t.rank());
    const auto mine = all.held(f);
    auto in = exchange.buffers(f, all.layer(), mine);
    ASSERT_EQ(seen.sent.size(), 1u);
    EXPECT_TRUE(seen.sent[0].equal(at::cat({mine[0].v, mine[1].v})));
    place_all(mine, in);
    exchange.launch(f, all.layer(), in);
    ASSERT_EQ(seen.sent.size(), 2u) << "keys are on their way before anybody waits";
    EXPECT_TRUE(seen.sent[1].equal(at::cat({mine[0].k, mine[1].k})));
    exchange.wait(f, all.layer(), in);
    EXPECT_EQ(seen.sent.size(), 2u);
  });
  EXPECT_EQ(failure, "");
}

// Attention of a rank's queries over all keys, beside that of one rank.
double error_of_attention(const TwoStreams& all, int ranks,
                          const std::function<std::unique_ptr<comm::Comm>(comm::Comm&)>& change = {}) {
  const c10::InferenceMode guard;
  nn::Sdpa kernel;
  nn::LocalExchange one;
  const nn::Attention alone(all.layer(), {.exchange = &one, .attention = &kernel});
  const auto whole = all.call(1, 0);
  const auto expected = alone(whole, all.held(whole));
  std::atomic<double> most = 0;
  const auto failure = failure_of(ranks, [&](comm::Transport& t) {
    std::vector<int> everybody;
    for (int r = 0; r < ranks; ++r) everybody.push_back(r);
    const auto group = t.open(everybody, "kv_gather");
    const auto changed = change ? change(*group) : nullptr;
    nn::Sdpa mine;
    nn::LocalExchange local(t.rank());
    KvGather exchange(changed ? *changed : *group, 0, local, 1);
    const nn::Attention attend(all.layer(), {.exchange = &exchange, .attention = &mine});
    const auto f = all.call(ranks, t.rank());
    const auto out = attend(f, all.held(f));
    const auto theirs = at::cat({cut(expected.narrow(0, 0, 5), f.streams[0].held(t.rank(), std::nullopt)),
                                 cut(expected.narrow(0, 5, 8), f.streams[1].held(t.rank(), std::nullopt))});
    if (out.numel() == 0) return;
    const double error = (out - theirs).abs().max().item<double>();
    for (double seen = most; error > seen && !most.compare_exchange_weak(seen, error);) {
    }
  });
  EXPECT_EQ(failure, "");
  return most;
}

TEST(KvGather, AnyNumberOfHeadsAndRanksAttendsAsOneRank) {
  for (const int64_t heads : {1, 3}) {
    for (const int ranks : {2, 3, 5, 9})  // with 9 some have no token of a stream
      EXPECT_LT(error_of_attention({.heads = heads}, ranks), 1e-12) << heads << " heads, " << ranks;
  }
}

// Its own part arrives, and so does everybody's of the values: keys of the others stay zero.
struct KeysLost : PassedOn {
  int calls = 0;
  explicit KeysLost(comm::Comm& group) : PassedOn(group) {}
  comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
    auto work = PassedOn::all_gather(out, mine, split);
    if (calls++ % 2 == 0) return work;
    work.wait();
    out.zero_();
    return {};
  }
};
// Parts of the ranks in another order.
struct PartsSwapped : PassedOn {
  explicit PartsSwapped(comm::Comm& group) : PassedOn(group) {}
  int calls = 0;
  comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
    PassedOn::all_gather(out, mine, split).wait();
    if (calls++ % 2 == 1) out.copy_(out.flip({0}).clone());
    return {};
  }
};

TEST(PlantedFault, LostAndMisplacedKeysShow) {
  EXPECT_GT(error_of_attention({}, 2, [](comm::Comm& c) { return std::make_unique<KeysLost>(c); }), 1e-3);
  EXPECT_GT(error_of_attention({}, 2, [](comm::Comm& c) { return std::make_unique<PartsSwapped>(c); }), 1e-3);
}

}  // namespace
}  // namespace atelier::parallel::testing
