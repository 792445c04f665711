// Tokens to heads and back, by messages and by stores into peers' memory: what arrives, in which order, and
// that memory which is used again is never written too early.
#include "parallel/ulysses.h"

#include <ATen/ops/zeros.h>

#include <atomic>
#include <chrono>
#include <random>

#include "nn/sdpa.h"
#include "parallel/comm_for_test.h"
#include "parallel/toy_for_test.h"
#include "parallel/ulysses_stores.h"

namespace atelier::parallel::testing {
namespace {

struct Messages : Ulysses {
  explicit Messages(comm::Comm& group) : Ulysses(group, 0) {}
};

struct Taking {
  Ulysses messages;
};
struct Stores : Taking, UlyssesStores {
  explicit Stores(comm::Comm& group) : Taking{Ulysses(group, 0)}, UlyssesStores(group, 0, messages) {}
};

template <class Kind>
void goes_there_and_back() {
  const auto failure = failure_of(3, [](comm::Transport& t) {
    const int ranks[] = {0, 1, 2};
    const auto group = t.open(ranks, "ulysses");
    Kind exchange(*group);
    const nn::CallContext f{
        .patch = std::nullopt, .streams = {{.patches = {8, 1}, .seq_parts = 3}}, .seq_rank = t.rank()};
    const nn::AttentionLayer layer{0, "a", {0}, {0}, {5, 2}};
    const auto all = noise({8, 2, 3, 5, 2}, 1);  // tokens, batch, {q, k, v}, heads, width
    const auto held = f.streams[0].held(t.rank(), std::nullopt);
    const auto mine = cut(all, held);
    const nn::Projected p{mine.select(2, 0), mine.select(2, 1), mine.select(2, 2)};
    // Two layers in flight at once.
    auto first = exchange.buffers(f, layer, std::span(&p, 1)),
         second = exchange.buffers(f, layer, std::span(&p, 1));
    for (auto* in : {&first, &second}) {
      for (int peer = 0; peer < 3; ++peer) {
        const Range h = in->heads[static_cast<size_t>(peer)];
        in->slots[0][static_cast<size_t>(peer)].q.copy_(p.q.narrow(2, h.begin, h.size));
        in->slots[0][static_cast<size_t>(peer)].kv.copy_(mine.narrow(2, 1, 2).narrow(3, h.begin, h.size));
      }
      if (in == &second) in->slots[0][0].q.add_(1);
      exchange.launch(f, layer, *in);
    }
    const Range h = Partition{5, 3}[t.rank()];
    const auto a = exchange.wait(f, layer, first), b = exchange.wait(f, layer, second);
    EXPECT_TRUE(a.q.equal(all.select(2, 0).narrow(2, h.begin, h.size)));
    EXPECT_TRUE(a.kv.equal(all.narrow(2, 1, 2).narrow(3, h.begin, h.size)));
    EXPECT_TRUE(a.q.is_contiguous() && a.kv.is_contiguous());
    EXPECT_EQ(b.q.equal(a.q), t.rank() != 0);
    EXPECT_EQ(a.held.first, 0);
    EXPECT_EQ(a.held.count, 3);
    EXPECT_TRUE(exchange.scatter_back(f, layer, first, a.q).equal(mine.select(2, 0)));
  });
  EXPECT_EQ(failure, "");
}

TEST(Ulysses, GoesThereAndBack) {
  goes_there_and_back<Messages>();
  goes_there_and_back<Stores>();
}

template <class Kind>
void keys_arrive_in_the_order_of_one_rank() {
  const auto text = noise({5, 1, 3, 2, 2}, 1), image = noise({7, 1, 3, 2, 2}, 2);
  const auto failure = failure_of(2, [&](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "ulysses");
    Kind exchange(*group);
    const nn::CallContext f{.patch = std::nullopt,
                            .streams = {{.patches = {5, 1}, .seq_parts = 2, .pinned_to_first_patch = true},
                                        {.patches = {7, 1}, .seq_parts = 2}},
                            .seq_rank = t.rank()};
    const nn::AttentionLayer layer{0, "a", {0, 1}, {0, 1}, {2, 2}};
    std::vector<nn::Projected> mine;
    for (const auto* whole : {&text, &image}) {
      const auto part = cut(*whole, f.streams[mine.size()].held(t.rank(), std::nullopt));
      mine.push_back({part.select(2, 0), part.select(2, 1), part.select(2, 2)});
    }
    auto in = exchange.buffers(f, layer, mine);
    for (size_t s = 0; s < mine.size(); ++s) {
      for (size_t peer = 0; peer < 2; ++peer) {
        const Range h = in.heads[peer];
        in.slots[s][peer].q.copy_(mine[s].q.narrow(2, h.begin, h.size));
        in.slots[s][peer].kv.select(2, 0).copy_(mine[s].k.narrow(2, h.begin, h.size));
        in.slots[s][peer].kv.select(2, 1).copy_(mine[s].v.narrow(2, h.begin, h.size));
      }
    }
    exchange.launch(f, layer, in);
    const auto all = exchange.wait(f, layer, in);
    const auto expected = at::cat({text, image}).narrow(2, 1, 2).narrow(3, t.rank(), 1);
    EXPECT_TRUE(all.kv.equal(expected));
  });
  EXPECT_EQ(failure, "");
}

TEST(Ulysses, KeysArriveInTheOrderOfOneRank) {
  keys_arrive_in_the_order_of_one_rank<Messages>();
  keys_arrive_in_the_order_of_one_rank<Stores>();
}

// Blocks of one stream project text and pictures together.
template <class Kind>
void one_projection_may_hold_several_streams() {
  const auto text = noise({5, 1, 3, 2, 4}, 1), image = noise({7, 1, 3, 2, 4}, 2);
  const nn::Rope text_rope{noise({5, 2}, 3), noise({5, 2}, 4)},
      image_rope{noise({7, 2}, 5), noise({7, 2}, 6)};
  const auto failure = failure_of(2, [&](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "ulysses");
    Kind exchange(*group);
    nn::Sdpa kernel;
    const nn::CallContext f{.patch = std::nullopt,
                            .streams = {{.patches = {5, 1}, .seq_parts = 2, .pinned_to_first_patch = true},
                                        {.patches = {7, 1}, .seq_parts = 2}},
                            .seq_rank = t.rank()};
    const auto part = [&](const at::Tensor& whole, int stream) {
      return cut(whole, f.streams[static_cast<size_t>(stream)].held(t.rank(), std::nullopt));
    };
    const auto projected = [](const at::Tensor& fused, const nn::Rope& rope) {
      return nn::Projected{
          fused.select(2, 0), fused.select(2, 1), fused.select(2, 2), nullptr, nullptr, &rope};
    };
    const nn::Rope mine[] = {{part(text_rope.cos, 0), part(text_rope.sin, 0)},
                             {part(image_rope.cos, 1), part(image_rope.sin, 1)}};
    const nn::Rope joint{at::cat({mine[0].cos, mine[1].cos}), at::cat({mine[0].sin, mine[1].sin})};
    const nn::Attention attend({0, "a", {0, 1}, {0, 1}, {2, 4}},
                               {.exchange = &exchange, .attention = &kernel});
    const auto apart =
        attend(f, {projected(part(text, 0), mine[0]), projected(part(image, 1), mine[1])}).clone();
    const auto together = attend(f, {projected(at::cat({part(text, 0), part(image, 1)}), joint)});
    EXPECT_TRUE(together.equal(apart));
  });
  EXPECT_EQ(failure, "");
}

TEST(Ulysses, OneProjectionMayHoldSeveralStreams) {
  one_projection_may_hold_several_streams<Messages>();
  one_projection_may_hold_several_streams<Stores>();
}

// Queries, keys and values in e4m3, what was attended in the model's type: one byte there, eight back.
template <class Kind>
void e4m3_attends_as_one_rank() {
  const auto all = noise({9, 2, 3, 3, 16}, 1);  // tokens, batch, {q, k, v}, heads, width
  const nn::AttentionLayer layer{0, "a", {0}, {0}, {3, 16}, false, true, at::kDouble};
  const auto attended = [&](nn::SequenceExchange& exchange, int rank, int size) {
    nn::Sdpa kernel;
    const nn::CallContext f{
        .patch = std::nullopt, .streams = {{.patches = {9, 1}, .seq_parts = size}}, .seq_rank = rank};
    const auto mine = cut(all, f.streams[0].held(rank, std::nullopt));
    const nn::Attention attend(layer, {.exchange = &exchange, .attention = &kernel});
    return attend(f, {nn::Projected{mine.select(2, 0), mine.select(2, 1), mine.select(2, 2)}}).clone();
  };
  nn::LocalExchange one;
  const auto expected = attended(one, 0, 1);
  const auto failure = failure_of(2, [&](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "ulysses");
    Kind exchange(*group);
    const nn::Layout whole{.patches = {9, 1}, .seq_parts = 2};
    EXPECT_TRUE(attended(exchange, t.rank(), 2).equal(cut(expected, whole.held(t.rank(), std::nullopt))));
    EXPECT_TRUE(exchange.ran());
  });
  EXPECT_EQ(failure, "");
}

TEST(Ulysses, E4m3AttendsAsOneRank) {
  e4m3_attends_as_one_rank<Messages>();
  e4m3_attends_as_one_rank<Stores>();
}

// A fence that is missing.
class Unfenced : public comm::Window {
 public:
  explicit Unfenced(std::unique_ptr<comm::Window> all) : all_(std::move(all)) {}
  at::Tensor local() const override { return all_->local(); }
  at::Tensor peer(int rank) const override { return all_->peer(rank); }
  comm::Work start_copies(std::span<const Range> bytes) override { return all_->copy_to_peers(bytes); }

 protected:
  void meet() override {}

 private:
  std::unique_ptr<comm::Window> all_;
};

void linger(std::mt19937& random) {
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
}

// One exchange of known numbers, from its start to what came back.
class Exchange {
 public:
  Exchange(nn::SequenceExchange& exchange, int rank, int size, int64_t tokens, uint64_t seed)
      : exchange_(exchange),
        rank_(rank),
        f_{.patch = std::nullopt, .streams = {{.patches = {tokens, 1}, .seq_parts = size}}, .seq_rank = rank},
        all_(noise({tokens, 2, 3, 5, 2}, seed)),
        mine_(cut(all_, f_.streams[0].held(rank, std::nullopt))) {
    const nn::Projected p{mine_.select(2, 0), mine_.select(2, 1), mine_.select(2, 2)};
    in_ = exchange_.buffers(f_, layer_, std::span(&p, 1));
    nn::place(p, in_.slots[0], in_.heads);
    exchange_.launch(f_, layer_, in_);
  }
  // Whether what arrived is what one rank would have there.
  bool arrives() {
    const auto a = exchange_.wait(f_, layer_, in_);
    const Range h = in_.heads[static_cast<size_t>(rank_)];
    out_ = a.q + a.kv.select(2, 0);
    return a.q.equal(all_.select(2, 0).narrow(2, h.begin, h.size)) &&
           a.kv.equal(all_.narrow(2, 1, 2).narrow(3, h.begin, h.size));
  }
  void go_back() { back_ = exchange_.scatter_back(f_, layer_, in_, out_); }
  bool is_back() const { return back_.equal(mine_.select(2, 0) + mine_.select(2, 1)); }

 private:
  const nn::AttentionLayer layer_{0, "a", {0}, {0}, {5, 2}};
  nn::SequenceExchange& exchange_;
  int rank_;
  nn::CallContext f_;
  at::Tensor all_, mine_, out_, back_;
  nn::ExchangeBuffers in_;
};

// Exchanges one after another through the same memory, ranks out of step; tokens: 0 for sizes that change.
// False where a value was not what one rank would have there.
bool rounds_agree(nn::SequenceExchange& exchange, int rank, int size, int rounds, int64_t tokens = 0) {
  std::mt19937 random(static_cast<unsigned>(rank));
  bool agree = true;
  for (int round = 0; round < rounds; ++round) {
    linger(random);
    Exchange one(exchange, rank, size, tokens > 0 ? tokens : 3 + round * 7 % 11,
                 static_cast<uint64_t>(round));
    linger(random);
    agree &= one.arrives();
    linger(random);
    one.go_back();
    linger(random);
    agree &= one.is_back();
  }
  return agree;
}

TEST(UlyssesStores, MemoryIsUsedAgainOnlyWhenItHasBeenRead) {
  for (const int size : {2, 3, 7}) {
    const auto failure = failure_of(size, [&](comm::Transport& t) {
      std::vector<int> ranks;
      for (int r = 0; r < size; ++r) ranks.push_back(r);
      const auto group = t.open(ranks, "ulysses");
      Stores exchange(*group);
      EXPECT_TRUE(rounds_agree(exchange, t.rank(), size, 100)) << size << " ranks";
      EXPECT_TRUE(exchange.ran());
      EXPECT_FALSE(exchange.messages.ran());
    });
    EXPECT_EQ(failure, "");
  }
}

// As the two attentions of a block of SD3.5: what the first brought back is read when the second has ended.
TEST(UlyssesStores, ExchangesThatAreUnderWayTogetherHaveMemoryOfTheirOwn) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "ulysses");
    Stores exchange(*group);
    std::mt19937 random(static_cast<unsigned>(t.rank()));
    for (uint64_t round = 0; round < 60; ++round) {
      Exchange first(exchange, t.rank(), 2, 9, 2 * round);
      linger(random);
      Exchange second(exchange, t.rank(), 2, 5, 2 * round + 1);
      linger(random);
      EXPECT_TRUE(first.arrives());
      first.go_back();
      linger(random);
      EXPECT_TRUE(second.arrives());
      second.go_back();
      linger(random);
      EXPECT_TRUE(first.is_back() && second.is_back()) << round;
    }
  });
  EXPECT_EQ(failure, "");
}

TEST(UlyssesStores, EitherFenceIsMissedWhereItIsMissing) {
  for (const int missing : {0, 1}) {  // that of what comes, that of what comes back
    std::atomic<int> wrong = 0;
    const auto failure = failure_of(2, [&](comm::Transport& t) {
      const int ranks[] = {0, 1};
      const auto group = t.open(ranks, "ulysses");
      int opened = 0;
      WindowsChanged unfenced(*group, [&](auto window) -> std::unique_ptr<comm::Window> {
        if (opened++ != missing) return window;
        return std::make_unique<Unfenced>(std::move(window));
      });
      Stores exchange(unfenced);
      wrong += !rounds_agree(exchange, t.rank(), 2, 100, 12);
      EXPECT_EQ(opened, 2);
    });
    EXPECT_EQ(failure, "");
    EXPECT_GT(wrong, 0) << missing;
  }
}

TEST(UlyssesStores, MessagesTakeOverWherePeersAreOutOfReach) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "ulysses");
    WindowsChanged out_of_reach(*group, [](auto) { return nullptr; });
    Stores exchange(out_of_reach);
    EXPECT_TRUE(rounds_agree(exchange, t.rank(), 2, 20));
    EXPECT_FALSE(exchange.ran());
    EXPECT_TRUE(exchange.messages.ran());
    EXPECT_EQ(out_of_reach.messages, 2 * 20);
    EXPECT_EQ(exchange.bytes(), 0);
  });
  EXPECT_EQ(failure, "");
}

// Rows of windows that have grown are kept, and do not grow by a little each time.
TEST(UlyssesStores, WindowsGrowInFewSteps) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const int ranks[] = {0, 1};
    const auto group = t.open(ranks, "ulysses");
    int opened = 0;
    WindowsChanged counted(*group, [&](auto window) {
      ++opened;
      return window;
    });
    Stores exchange(counted);
    for (int64_t tokens = 2; tokens <= 400; tokens += 2) {
      const nn::CallContext f{
          .patch = std::nullopt, .streams = {{.patches = {tokens, 1}, .seq_parts = 2}}, .seq_rank = t.rank()};
      const auto x = at::zeros({tokens / 2, 1, 2, 64}, at::TensorOptions(at::kFloat));
      const nn::Projected p{x, x, x};
      exchange.buffers(f, {0, "a", {0}, {0}, {2, 64}}, std::span(&p, 1));
    }
    EXPECT_LE(opened, 2 * 16);
    EXPECT_LE(exchange.bytes(), 4 * 400 * 4 * 64 * 4 * 2);
  });
  EXPECT_EQ(failure, "");
}

}  // namespace
}  // namespace atelier::parallel::testing
