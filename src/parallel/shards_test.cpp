// Sharded weights are there when their block runs, whatever the order, and take the memory they should.
#include "parallel/shards.h"

#include <ATen/ops/full.h>

#include "parallel/toy_for_test.h"

namespace atelier::parallel::testing {
namespace {

// Three weights of odd sizes and two types per block; block i's hold numbers that only it has.
struct Weights {
  at::Tensor a, b, c;
};
Weights build(nn::Memory& memory, int block) {
  const at::TensorOptions wide(at::kDouble), narrow(at::kBFloat16);
  Weights w{memory.take(block, {block + 1, 3}, wide), memory.take(block, {5}, narrow),
            memory.take(block, {2, 7}, wide)};
  if (!w.a.is_meta()) {
    w.a.copy_(noise(w.a.sizes(), static_cast<uint64_t>(block)));
    w.b.fill_(block);
    w.c.copy_(noise(w.c.sizes(), 100 + static_cast<uint64_t>(block)));
  }
  memory.finish(block);
  return w;
}

bool are_right(const Weights& w, int block) {
  return w.a.equal(noise(w.a.sizes(), static_cast<uint64_t>(block))) && w.b.eq(block).all().item<bool>() &&
         w.c.equal(noise(w.c.sizes(), 100 + static_cast<uint64_t>(block)));
}

struct Model {
  BlockSizes sizes;
  std::unique_ptr<ShardedMemory> memory;
  std::map<int, Weights> weights;
  at::Tensor resident;

  Model(comm::Comm& group, std::span<const int> blocks) {
    for (const int i : blocks) build(sizes, i);
    memory = std::make_unique<ShardedMemory>(group, sizes.bytes(), c10::kCPU);
    resident = memory->take(nn::Memory::kResident, {3}, at::TensorOptions(at::kDouble)).fill_(4);
    for (const int i : blocks) weights[i] = build(*memory, i);
  }
  bool runs(std::span<const int> order) {
    bool right = true;
    memory->start(order);
    for (const int i : order) {
      memory->before(i);
      right = right && are_right(weights.at(i), i);
    }
    return right && resident.eq(4).all().item<bool>();
  }
};

std::unique_ptr<comm::Comm> everybody(comm::Transport& t) {
  std::vector<int> ranks;
  for (int r = 0; r < t.size(); ++r) ranks.push_back(r);
  return t.open(ranks, "shards");
}

TEST(ShardedMemory, EveryBlockIsWholeWhenItRuns) {
  for (const int ranks : {2, 3}) {
    const auto failure = failure_of(ranks, [](comm::Transport& t) {
      const auto group = everybody(t);
      const std::vector<int> all{0, 1, 2, 3, 4}, two{6, 7}, one{3}, folded{2, 3, 4, 9, 10};
      Model model(*group, all);
      const int first[] = {0, 1}, odd[] = {2, 3, 4}, strange[] = {0, 2, 4, 4, 1};
      for (int pass = 0; pass < 2; ++pass) {
        EXPECT_TRUE(model.runs(all));
        EXPECT_TRUE(model.runs(first));
        EXPECT_TRUE(model.runs(odd));
        EXPECT_TRUE(model.runs(strange));
      }
      Model pair(*group, two), single(*group, one), chunks(*group, folded);
      const int early[] = {2, 3, 4}, late[] = {9, 10};
      for (int pass = 0; pass < 2; ++pass) {
        EXPECT_TRUE(pair.runs(two));
        EXPECT_TRUE(single.runs(one));
        EXPECT_TRUE(chunks.runs(early));
        EXPECT_TRUE(chunks.runs(late));
      }
    });
    EXPECT_EQ(failure, "");
  }
}

TEST(ShardedMemory, TakesTwoBlocksAndAShareOfAll) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const auto group = everybody(t);
    const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7};
    Model model(*group, all);
    // Each weight of a block fits 256 bytes, three weights: 768 bytes, which two ranks round up to 1024.
    EXPECT_EQ(model.memory->bytes(), 2 * 1024 + 8 * 512);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(model.weights[1].c.data_ptr()) % sizeof(double), 0u);
  });
  EXPECT_EQ(failure, "");
}

TEST(ShardedMemory, GathersEachBlockOncePerPassAndOneAhead) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    int gathers = 0;
    t.observe([&](const comm::Event& e) { gathers += e.verb == "all_gather" ? 1 : 0; });
    const auto group = everybody(t);
    const std::vector<int> all{0, 1, 2, 3, 4};
    Model model(*group, all);
    EXPECT_EQ(gathers, 0);
    model.memory->start(all);
    EXPECT_EQ(gathers, 1);
    for (const int i : all) {
      model.memory->before(i);
      EXPECT_EQ(gathers, std::min(i + 2, 5));
    }
  });
  EXPECT_EQ(failure, "");
}

// A group whose gather puts the two ranks' parts into each other's places.
struct Swapping : comm::Comm {
  comm::Comm& inner;
  explicit Swapping(comm::Comm& group) : inner(group) {}
  int rank() const override { return inner.rank(); }
  int size() const override { return inner.size(); }
  std::string_view name() const override { return "swapping"; }
  comm::Work all_reduce(at::Tensor& sum) override { return inner.all_reduce(sum); }
  comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
    inner.all_gather(out, mine, split).wait();
    out.copy_(at::cat({out.narrow(0, split[0], split[1]), out.narrow(0, 0, split[0])}));
    return {};
  }
  comm::Work all_to_all(at::Tensor& out, const at::Tensor& in, std::span<const int64_t> out_split,
                        std::span<const int64_t> in_split) override {
    return inner.all_to_all(out, in, out_split, in_split);
  }
  comm::Work send_recv(const at::Tensor& out, int to, at::Tensor& in, int from) override {
    return inner.send_recv(out, to, in, from);
  }
  comm::Work send(const at::Tensor& out, int to) override { return inner.send(out, to); }
  comm::Work recv(at::Tensor& in, int from) override { return inner.recv(in, from); }
  void broadcast(at::Tensor& value, int root) override { inner.broadcast(value, root); }
  void barrier() override { inner.barrier(); }
  void abort() noexcept override { inner.abort(); }
  void check_alive() override { inner.check_alive(); }
};

TEST(PlantedFault, SwappedWeightShardShows) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const auto group = everybody(t);
    Swapping swapping(*group);
    const std::vector<int> all{0, 1, 2};
    EXPECT_TRUE(Model(*group, all).runs(all));
    EXPECT_FALSE(Model(swapping, all).runs(all));
  });
  EXPECT_EQ(failure, "");
}

}  // namespace
}  // namespace atelier::parallel::testing
