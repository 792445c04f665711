// Keys and values of all ranks on each of them, by messages and by copies and stores into peers' memory:
// their order, their bits, when each of the two gathers starts, memory that is used again, and faults that
// must show.
#include "parallel/kv_gather.h"

#include <atomic>
#include <random>
#include <thread>

#include "nn/sdpa.h"
#include "parallel/comm_for_test.h"
#include "parallel/kv_gather_stores.h"
#include "parallel/toy_for_test.h"
#include "parallel/ulysses.h"

namespace atelier::parallel::testing {
namespace {

// The exchanges of a rank with no neighbours brought together before.
struct Alone {
  nn::LocalExchange alone;
  KvGather messages;
  explicit Alone(comm::Comm& group) : alone(group.rank()), messages(group, 0, alone, 1) {}
};
struct Messages : Alone {
  using Alone::Alone;
  nn::SequenceExchange& exchange() { return messages; }
  bool ran() const { return messages.ran(); }
};
struct Stores : Alone {
  KvGatherStores stores;
  explicit Stores(comm::Comm& group) : Alone(group), stores(group, 0, messages) {}
  nn::SequenceExchange& exchange() { return stores; }
  bool ran() const { return stores.ran() && !messages.ran(); }
};

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
  int64_t width = 4;
  at::Tensor text = noise({5, 2, 3, heads, width}, 1), image = noise({8, 2, 3, heads, width}, 2);
  nn::CallContext call(int ranks, int rank, int patches = 1) const {
    return {.patch = std::nullopt,
            .streams = {{.patches = {5, patches}, .seq_parts = ranks, .pinned_to_first_patch = true},
                        {.patches = {8, patches}, .seq_parts = ranks}},
            .seq_rank = rank};
  }
  bool is_overlapped = true;
  bool is_e4m3 = false;
  nn::AttentionLayer layer() const {
    return {0, "a", {0, 1}, {0, 1}, {heads, width}, is_overlapped, is_e4m3, at::kDouble};
  }
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

// Projections that are streams.
void place_all(const std::vector<nn::Projected>& streams, nn::ExchangeBuffers& in) {
  ASSERT_EQ(in.slots.size(), streams.size());
  for (size_t s = 0; s < streams.size(); ++s) nn::place(streams[s], in.slots[s], in.heads);
}

template <class Way>
void keys_arrive_in_the_order_of_one_rank(bool is_overlapped) {
  const TwoStreams all{.is_overlapped = is_overlapped};
  const auto failure = failure_of(3, [&](comm::Transport& t) {
    const int ranks[] = {0, 1, 2};
    const auto group = t.open(ranks, "kv_gather");
    Way way(*group);
    auto& exchange = way.exchange();
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
    EXPECT_TRUE(way.ran());
  });
  EXPECT_EQ(failure, "");
}

TEST(KvGather, KeysArriveInTheOrderOfOneRankAndQueriesStay) {
  keys_arrive_in_the_order_of_one_rank<Messages>(true);
}
TEST(KvGatherStores, KeysArriveInTheOrderOfOneRankAndQueriesStay) {
  for (const bool is_overlapped : {false, true}) keys_arrive_in_the_order_of_one_rank<Stores>(is_overlapped);
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
template <class Way>
void patches_stay_rank_by_rank() {
  const TwoStreams all;
  const auto failure = failure_of(2, [&](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "kv_gather");
    Way way(*group);
    for (const std::optional<int> patch : {std::optional<int>(), std::optional(0), std::optional(1)}) {
      auto f = all.call(2, t.rank(), 2);
      f.patch = patch;
      const auto mine = all.held(f);
      auto in = way.exchange().buffers(f, all.layer(), mine);
      place_all(mine, in);
      way.exchange().launch(f, all.layer(), in);
      const auto a = way.exchange().wait(f, all.layer(), in);
      std::vector<at::Tensor> keys;
      for (int r = 0; r < 2; ++r) {
        auto theirs = f;
        theirs.seq_rank = r;
        for (const auto& p : all.held(theirs)) keys.push_back(p.k);
      }
      EXPECT_TRUE(a.kv.select(2, 0).equal(at::cat(keys)));
      EXPECT_EQ(a.held.patch, patch);
    }
    EXPECT_TRUE(way.ran());
  });
  EXPECT_EQ(failure, "");
}

TEST(KvGather, PatchesStayRankByRank) {
  patches_stay_rank_by_rank<Messages>();
}
TEST(KvGatherStores, PatchesStayRankByRank) {
  patches_stay_rank_by_rank<Stores>();
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
template <class Way = Messages>
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
    Way way(changed ? *changed : *group);
    const nn::Attention attend(all.layer(), {.exchange = &way.exchange(), .attention = &mine});
    const auto f = all.call(ranks, t.rank());
    const auto held = all.held(f);
    const auto out = all.is_overlapped ? attend.finish(attend.start(f, held)) : attend(f, held);
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
    for (const int ranks : {2, 3, 5, 9}) {  // with 9 some have no token of a stream
      EXPECT_LT(error_of_attention({.heads = heads}, ranks), 1e-12) << heads << " heads, " << ranks;
      for (const bool over : {false, true})
        EXPECT_LT(error_of_attention<Stores>({.heads = heads, .is_overlapped = over}, ranks), 1e-12)
            << heads << " heads, " << ranks;
    }
  }
}

TEST(KvGather, E4m3AttendsAsOneRank) {
  for (const int ranks : {2, 3, 9}) {
    for (const bool over : {false, true}) {
      const TwoStreams all{.width = 16, .is_overlapped = over, .is_e4m3 = true};
      EXPECT_LT(error_of_attention(all, ranks), 1e-12) << ranks;
      EXPECT_LT(error_of_attention<Stores>(all, ranks), 1e-12) << ranks;
    }
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

// A window with one of the two barriers of an exchange missing: that before copies or stores, or that behind.
class Unfenced : public comm::Window {
 public:
  Unfenced(std::unique_ptr<comm::Window> all, int rank, bool before)
      : all_(std::move(all)), rank_(rank), before_(before) {}
  at::Tensor local() const override { return all_->local(); }
  at::Tensor peer(int rank) const override { return all_->peer(rank); }
  comm::Work start_copies(std::span<const Range> bytes) override {
    if (!before_ && rank_ == 1) std::this_thread::sleep_for(std::chrono::milliseconds(3));  // a slow copy
    for (const Range part : bytes)
      peer(1 - rank_).narrow(0, part.begin, part.size).copy_(local().narrow(0, part.begin, part.size));
    return {};
  }

 protected:
  void meet() override {
    const bool is_before = barriers_++ % 2 == 0;
    if (is_before != before_) all_->barrier();
  }

 private:
  std::unique_ptr<comm::Window> all_;
  int rank_;
  bool before_;
  int64_t barriers_ = 0;
};

// Exchanges one after another through the same memory, ranks out of step, sizes that change at times. False
// where a value was not what one rank would have there.
bool rounds_agree(nn::SequenceExchange& exchange, int rank, int size, int rounds, bool is_overlapped) {
  std::mt19937 random(static_cast<unsigned>(rank));
  const auto linger = [&] { std::this_thread::sleep_for(std::chrono::microseconds(random() % 300)); };
  // Now and then a rank is so slow that the other would be ahead of it, were it not for the barriers.
  const auto fall_behind = [](bool here) {
    if (here) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  };
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {5, 2}, is_overlapped};
  bool agree = true;
  for (int round = 0; round < rounds; ++round) {
    const int64_t tokens = 3 + round / 4 * 7 % 11;
    const nn::CallContext f{
        .patch = std::nullopt, .streams = {{.patches = {tokens, 1}, .seq_parts = size}}, .seq_rank = rank};
    const auto all = noise({tokens, 2, 3, 5, 2}, static_cast<uint64_t>(round));
    const auto mine = cut(all, f.streams[0].held(rank, std::nullopt));
    const nn::Projected p{mine.select(2, 0), mine.select(2, 1), mine.select(2, 2)};
    linger();
    auto in = exchange.buffers(f, layer, std::span(&p, 1));
    fall_behind(rank == 1 && round % 8 == 4);
    nn::place(p, in.slots[0], in.heads);
    exchange.launch(f, layer, in);
    linger();
    const auto a = exchange.wait(f, layer, in);
    fall_behind(rank == 0 && round % 8 == 0);
    agree &= a.q.equal(mine.select(2, 0)) && a.kv.equal(all.narrow(2, 1, 2));
  }
  return agree;
}

TEST(KvGatherStores, MemoryIsUsedAgainOnlyWhenItHasBeenRead) {
  for (const int size : {2, 3, 7}) {
    const auto failure = failure_of(size, [&](comm::Transport& t) {
      std::vector<int> ranks;
      for (int r = 0; r < size; ++r) ranks.push_back(r);
      const auto group = t.open(ranks, "kv_gather");
      Stores way(*group);
      for (const bool over : {true, false, true})
        EXPECT_TRUE(rounds_agree(way.stores, t.rank(), size, 50, over)) << size << " ranks";
      EXPECT_TRUE(way.ran());
      EXPECT_GT(way.stores.bytes(), 0);
    });
    EXPECT_EQ(failure, "");
  }
}

TEST(PlantedFault, EitherBarrierIsMissedWhereItIsMissing) {
  for (const bool is_overlapped : {true, false}) {
    for (const bool before : {true, false}) {
      std::atomic<int> wrong = 0;
      const auto failure = failure_of(2, [&](comm::Transport& t) {
        const int ranks[] = {0, 1};
        const auto group = t.open(ranks, "kv_gather");
        WindowsChanged unfenced(*group, [&](auto window) {
          return std::make_unique<Unfenced>(std::move(window), t.rank(), before);
        });
        Stores way(unfenced);
        wrong += !rounds_agree(way.stores, t.rank(), 2, 30, is_overlapped);
      });
      EXPECT_EQ(failure, "");
      EXPECT_GT(wrong, 0) << (is_overlapped ? "copies, " : "stores, ") << (before ? "before" : "behind");
    }
  }
}

TEST(KvGatherStores, MessagesTakeOverWherePeersAreOutOfReach) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "kv_gather");
    WindowsChanged out_of_reach(*group, [](auto) { return nullptr; });
    Stores way(out_of_reach);
    EXPECT_TRUE(rounds_agree(way.stores, t.rank(), 2, 20, true));
    EXPECT_FALSE(way.stores.ran());
    EXPECT_TRUE(way.messages.ran());
    EXPECT_EQ(way.stores.bytes(), 0);
  });
  EXPECT_EQ(failure, "");
}

}  // namespace
}  // namespace atelier::parallel::testing
