// Sharded weights are there when their block runs, whatever the order, and take the memory they should.
#include "parallel/shards.h"

#include <ATen/ops/full.h>

#include "nn/testing.h"
#include "parallel/comm_for_test.h"
#include "parallel/toy_for_test.h"

namespace atelier::parallel::testing {
namespace {

// Three weights of odd sizes and two types per block; block i's hold numbers that only it has.
struct Weights {
  at::Tensor a, b, c;
};
Weights build(nn::BlockMemory& memory, int block) {
  const at::TensorOptions wide(at::kDouble), narrow(at::kBFloat16);
  Weights w{memory.take(block, {block + 1, 3}, wide).weight, memory.take(block, {5}, narrow).weight,
            memory.take(block, {2, 7}, wide).weight};
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
  nn::BlockSizes sizes;
  std::unique_ptr<Sharded> memory;
  std::map<int, Weights> weights;
  at::Tensor resident;

  Model(comm::Comm& group, std::span<const int> blocks) {
    for (const int i : blocks) build(sizes, i);
    memory = std::make_unique<Sharded>(group, sizes.bytes(), c10::kCPU);
    resident = memory->take(nn::BlockMemory::kResident, {3}, at::TensorOptions(at::kDouble)).weight.fill_(4);
    for (const int i : blocks) weights[i] = build(*memory, i);
  }
  bool runs(std::span<const int> order) {
    bool right = true;
    memory->will_run(order);
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

TEST(Sharded, EveryBlockIsWholeWhenItRuns) {
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

TEST(Sharded, TakesTwoBlocksAndAShareOfAll) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    const auto group = everybody(t);
    const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7};
    Model model(*group, all);
    // Each weight of a block fits 256 bytes, three weights: 768 bytes, which two ranks round up to 1024.
    EXPECT_EQ(model.memory->bytes_in_place(), 2 * 1024);
    EXPECT_EQ(model.memory->bytes_at_home(), 8 * 512);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(model.weights[1].c.data_ptr()) % sizeof(double), 0u);
  });
  EXPECT_EQ(failure, "");
}

TEST(Sharded, GathersEachBlockOncePerPassAndOneAhead) {
  const auto failure = failure_of(2, [](comm::Transport& t) {
    int gathers = 0;
    t.observe([&](const comm::Event& e) { gathers += e.verb == "all_gather" ? 1 : 0; });
    const auto group = everybody(t);
    const std::vector<int> all{0, 1, 2, 3, 4};
    Model model(*group, all);
    EXPECT_EQ(gathers, 0);
    model.memory->will_run(all);
    EXPECT_EQ(gathers, 1);
    for (const int i : all) {
      model.memory->before(i);
      EXPECT_EQ(gathers, std::min(i + 2, 5));
    }
  });
  EXPECT_EQ(failure, "");
}

// Counts the elements that are read.
class CountingStore : public nn::PlantedStore {
 public:
  using PlantedStore::PlantedStore;
  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override {
    if (!out.is_meta()) elements += out.numel();
    PlantedStore::read_into(out, name, full, rows, cols);
  }
  mutable int64_t elements = 0;
};

// Linears of three shapes in five blocks, whose shares begin and end inside of rows.
TEST(Sharded, EachRankReadsItsShareOfEveryBlockAndNoMore) {
  constexpr Range kShapes[] = {{37, 64}, {64, 37}, {3, 500}};  // in, out
  std::map<std::string, at::Tensor> planted;
  int64_t total = 0;
  for (int i = 0; i < 5; ++i) {
    for (const auto [in, out] : kShapes) {
      const auto name = str("block.", i, ".", in);
      planted[name + ".weight"] = noise({out, in}, static_cast<uint64_t>(i + in));
      planted[name + ".bias"] = noise({out}, static_cast<uint64_t>(i + out));
      total += out * (in + 1);
    }
  }
  for (const int ranks : {2, 3}) {
    const auto failure = failure_of(ranks, [&](comm::Transport& t) {
      const auto group = everybody(t);
      const CountingStore store(planted);
      const auto build_all = [&](nn::BlockMemory& memory, c10::Device device) {
        const nn::Seams seams;
        const nn::Builder b(store, seams, memory, at::TensorOptions(at::kDouble).device(device));
        std::map<std::pair<int, int64_t>, nn::Linear> layers;
        for (int i = 0; i < 5; ++i) {
          for (const auto [in, out] : kShapes)
            layers[{i, in}] = (b.block(i) / "block" / i).linear(str(in), in, out);
          b.finish_block(i);
        }
        return layers;
      };
      nn::BlockSizes sizes;
      build_all(sizes, c10::kMeta);
      Sharded memory(*group, sizes.bytes(), c10::kCPU);
      const auto layers = build_all(memory, c10::kCPU);
      // Beyond its share a rank reads the rest of the rows in which it begins and ends, and padding is
      // not spread evenly.
      EXPECT_LT(store.elements, total / ranks + 5 * (64 + 500 + 100));
      EXPECT_GT(store.elements, total / ranks / 2);
      const std::vector<int> order{0, 1, 2, 3, 4};
      memory.will_run(order);
      for (const int i : order) {
        memory.before(i);
        for (const auto [in, out] : kShapes) {
          const auto name = str("block.", i, ".", in);
          const auto x = noise({3, in}, 9);
          EXPECT_TRUE(layers.at({i, in})(x).equal(
              at::linear(x, planted.at(name + ".weight"), planted.at(name + ".bias"))));
        }
      }
    });
    EXPECT_EQ(failure, "");
  }
}

// Rows of e4m3 and their scales lie apart in a block, so that one rank may hold the scales of another's rows.
TEST(Sharded, EightBitWeightsAreGatheredWithTheirScales) {
  std::map<std::string, at::Tensor> planted;
  for (int i = 0; i < 5; ++i) {
    for (const int64_t out : {48, 16, 80})
      planted[str("block.", i, ".", out, ".weight")] = noise({out, 96}, static_cast<uint64_t>(i + out));
  }
  for (const int ranks : {2, 3, 4}) {
    const auto failure = failure_of(ranks, [&](comm::Transport& t) {
      const auto group = everybody(t);
      const CountingStore store(planted);
      std::map<std::pair<int, int64_t>, nn::Linear> layers;
      const auto build_all = [&](nn::BlockMemory& memory, c10::Device device) {
        const nn::Seams seams;
        const auto b = nn::Builder(store, seams, memory, at::TensorOptions(at::kFloat).device(device))
                           .of_tier(nn::Tier::kFast);
        for (int i = 0; i < 5; ++i) {
          for (const int64_t out : {48, 16, 80})
            layers[{i, out}] = (b.block(i) / "block" / i).linear(str(out), 96, out, nn::Bias::kNo);
          b.finish_block(i);
        }
      };
      nn::BlockSizes sizes;
      build_all(sizes, c10::kMeta);
      Sharded memory(*group, sizes.bytes(), c10::kCPU);
      build_all(memory, c10::kCPU);
      const std::vector<int> order{0, 1, 2, 3, 4};
      memory.will_run(order);
      for (const int i : order) {
        memory.before(i);
        for (const int64_t out : {48, 16, 80}) {
          const auto x = noise({3, 96}, 9).to(at::kFloat);
          const auto w = planted.at(str("block.", i, ".", out, ".weight")).to(at::kFloat);
          const nn::Linear whole(nn::quantised_weight(w, at::kFloat8_e4m3fn), at::Tensor(), nullptr);
          EXPECT_TRUE(layers.at({i, out})(x).equal(whole(x))) << "block " << i << ", " << out << " rows";
        }
      }
    });
    EXPECT_EQ(failure, "");
  }
}

// A group whose gather puts the two ranks' parts into each other's places.
struct Swapping : PassedOn {
  using PassedOn::PassedOn;
  comm::Work all_gather(at::Tensor& out, const at::Tensor& mine, std::span<const int64_t> split) override {
    inner.all_gather(out, mine, split).wait();
    out.copy_(at::cat({out.narrow(0, split[0], split[1]), out.narrow(0, 0, split[0])}));
    return {};
  }
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
