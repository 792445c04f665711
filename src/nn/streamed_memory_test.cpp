// Weights that come and go: there when their block runs, whatever the order, in bounded memory.
#include "nn/streamed_memory.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "nn/modulation_table.h"
#include "nn/testing.h"

namespace atelier::nn {
namespace {

// Three weights of odd sizes and two types per block; block i's hold numbers that only it has.
struct Weights {
  at::Tensor a, b, c;
};

at::Tensor numbers(at::IntArrayRef sizes, int block, uint64_t which) {
  return random(sizes, at::kDouble, 1000 * which + static_cast<uint64_t>(block) + 1);
}

Weights build(BlockMemory& memory, int block) {
  const at::TensorOptions wide(at::kDouble), narrow(at::kBFloat16);
  Weights w{memory.take(block, {block + 1, 3}, wide).weight, memory.take(block, {5}, narrow).weight,
            memory.take(block, {2, 7}, wide).weight};
  if (!w.a.is_meta()) {
    w.a.copy_(numbers(w.a.sizes(), block, 1));
    w.b.fill_(block);
    w.c.copy_(numbers(w.c.sizes(), block, 2));
  }
  memory.finish(block);
  return w;
}

bool are_right(const Weights& w, int block) {
  return w.a.equal(numbers(w.a.sizes(), block, 1)) && w.b.eq(block).all().item<bool>() &&
         w.c.equal(numbers(w.c.sizes(), block, 2));
}

struct OffloadedBlocks {
  BlockSizes sizes;
  std::unique_ptr<Offloaded> memory;
  std::map<int, Weights> weights;
  at::Tensor resident;

  explicit OffloadedBlocks(std::span<const int> blocks) {
    for (const int i : blocks) build(sizes, i);
    memory = std::make_unique<Offloaded>(sizes.bytes(), c10::kCPU);
    resident = memory->take(BlockMemory::kResident, {3}, at::TensorOptions(at::kDouble)).weight.fill_(4);
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

TEST(Offloaded, EveryBlockIsWholeWhenItRunsAgainAndAgain) {
  const std::vector<int> all{0, 1, 2, 3, 4}, first{0, 1}, strange{0, 2, 4, 4, 1}, folded{2, 3, 4, 9, 10};
  OffloadedBlocks blocks(all), parts(folded);
  const int early[] = {2, 3, 4}, late[] = {9, 10};
  for (int pass = 0; pass < 3; ++pass) {
    EXPECT_TRUE(blocks.runs(all));
    EXPECT_TRUE(blocks.runs(first));
    EXPECT_TRUE(blocks.runs(strange));
    EXPECT_TRUE(parts.runs(early));
    EXPECT_TRUE(parts.runs(late));
  }
}

TEST(Offloaded, TwoBlocksAreInPlaceHoweverManyThereAre) {
  std::vector<int> all(20);
  for (int i = 0; i < 20; ++i) all[static_cast<size_t>(i)] = i;
  const OffloadedBlocks blocks(all);
  // The largest blocks, 18 and 19: 57 and 60 doubles, 5 halves, 14 doubles, each rounded up to 256 bytes.
  EXPECT_EQ(blocks.memory->bytes_in_place(), 2 * (512 + 256 + 256));
  EXPECT_EQ(blocks.memory->bytes_at_home(), 20 * 768 + 10 * 256);
}

TEST(Offloaded, AnAbandonedPassLeavesNothingBehind) {
  const std::vector<int> all{0, 1, 2, 3};
  OffloadedBlocks blocks(all);
  blocks.memory->will_run(all);
  blocks.memory->before(0);
  blocks.memory->abandon();
  EXPECT_TRUE(blocks.runs(all));
}

TEST(Offloaded, ABlockOutOfOrderIsABug) {
  const std::vector<int> all{0, 1, 2};
  OffloadedBlocks blocks(all);
  blocks.memory->will_run(all);
  EXPECT_THROW(blocks.memory->before(1), std::logic_error);
}

// What block 0 leaves in its place must not be taken for block 2's.
TEST(PlantedFault, ABlockThatIsNotFetchedShows) {
  const std::vector<int> all{0, 1, 2};
  OffloadedBlocks blocks(all);
  blocks.memory->will_run(all);
  blocks.memory->before(0);
  EXPECT_TRUE(are_right(blocks.weights.at(0), 0));
  EXPECT_FALSE(are_right(blocks.weights.at(2), 2));
}

TEST(Parked, ComesBackWithItsNumbersAndLeavesNothingInPlace) {
  Parked memory;
  const auto w = build(memory, 3);
  const auto view = w.a.narrow(0, 1, 2);
  const int64_t bytes = memory.bytes();
  EXPECT_EQ(bytes, 12 * 8 + 5 * 2 + 14 * 8);
  for (int pass = 0; pass < 3; ++pass) {
    memory.release();
    EXPECT_EQ(memory.bytes(), 0);
    EXPECT_EQ(w.a.storage().data(), nullptr);
    memory.release();  // twice is once
    memory.will_run({});
    EXPECT_EQ(memory.bytes(), bytes);
    EXPECT_TRUE(are_right(w, 3));
    EXPECT_TRUE(view.equal(numbers({4, 3}, 3, 1).narrow(0, 1, 2)));
  }
}

// Tables leave when the blocks run and come back for the next request.
TEST(Offloaded, TablesAreInPlaceOnlyWhileTheyAreEvaluated) {
  const auto w = random({6, 4}, at::kDouble, 3), b = random({6}, at::kDouble, 4), x = random({2, 1, 4});
  const PlantedStore store({{"t.weight", w}, {"t.bias", b}});
  const std::vector<int> blocks{0, 1, 2};
  OffloadedBlocks offloaded(blocks);
  Resident resident;
  const auto manifest = std::make_shared<Manifest>();
  ModulationTables plain(store, nullptr, resident, at::TensorOptions(at::kDouble), manifest),
      parked(store, nullptr, *offloaded.memory, at::TensorOptions(at::kDouble), manifest);
  for (auto* tables : {&plain, &parked}) {
    tables->add("t", 4, 6);
    tables->load();
  }
  for (int request = 0; request < 3; ++request) {
    EXPECT_TRUE(parked.evaluate(x).equal(plain.evaluate(x)));
    EXPECT_TRUE(offloaded.runs(blocks));
  }
}

}  // namespace
}  // namespace atelier::nn
