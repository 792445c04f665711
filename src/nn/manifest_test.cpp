// The manifest of a model: enough to read other weights into the same memory.
#include "nn/manifest.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <map>

#include "nn/testing.h"

namespace atelier::nn {
namespace {

std::map<std::string, at::Tensor> planted(uint64_t seed) {
  std::map<std::string, at::Tensor> t;
  const auto plant = [&](const std::string& name, at::IntArrayRef sizes) {
    t[name] = random(sizes, at::kDouble, seed + 10 * t.size());
  };
  for (const std::string layer : {"up", "down", "mod"}) {
    plant("b." + layer + ".weight", layer == "down" ? at::IntArrayRef{6, 16} : at::IntArrayRef{16, 6});
    plant("b." + layer + ".bias", {layer == "down" ? 6 : 16});
  }
  plant("b.norm.weight", {6});
  plant("b.norm.bias", {6});
  return t;
}

// A pair that features cut, a norm and a table, built on rank 1 of 2.
struct Small {
  SingleRank rank{1, 2};
  Builder builder;
  Linear up, down;
  LayerNorm norm;
  std::shared_ptr<ModulationTables> tables;

  explicit Small(const weights::WeightStore& store)
      : builder(rank.builder(store, at::TensorOptions(at::kDouble))) {
    const auto b = builder.block(3) / "b";
    up = b.expand("up", 6, {Dim{3, 4}, Dim{4}});
    down = b.contract("down", {Dim{3, 4}, Dim{4}}, 6);
    norm = b.layer_norm("norm", 6, 1e-5);
    b.table("mod", 6, 16);
    tables = b.tables();
    tables->load();
  }
  std::vector<at::Tensor> run(const at::Tensor& x) const {
    return {down(up(norm(x))), tables->evaluate(x.unsqueeze(0))};
  }
};

bool are_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return a.size() == 2 && a[0].equal(b[0]) && a[1].equal(b[1]);
}

TEST(Manifest, OtherWeightsCanBeReadIntoTheSameMemory) {
  const PlantedStore first(planted(1)), second(planted(5));
  const Small model(first), other(second);
  const auto x = random({4, 6});
  const auto before = model.run(x);
  ASSERT_FALSE(are_equal(before, other.run(x)));
  for (auto held : model.builder.manifest()) {
    second.read_into(held.tensor, held.name, held.full, held.rows, held.cols);
  }
  EXPECT_TRUE(are_equal(model.run(x), other.run(x)));
  EXPECT_TRUE(second.missing.empty());
  for (auto held : model.builder.manifest())
    first.read_into(held.tensor, held.name, held.full, held.rows, held.cols);
  EXPECT_TRUE(are_equal(model.run(x), before));
}

TEST(Manifest, NamesEachTensorItsSliceAndItsBlock) {
  const PlantedStore store(planted(1));
  const Small model(store);
  std::map<std::string, HeldWeight> by_name;
  for (const auto& held : model.builder.manifest()) by_name[held.name] = held;
  EXPECT_EQ(by_name.size(), 8u);
  const auto& up = by_name.at("b.up.weight");
  EXPECT_EQ(up.full, (std::vector<int64_t>{16, 6}));
  EXPECT_EQ(up.rows, (std::vector<Range>{{8, 4}, {14, 2}}));  // one of three heads of 4, two of four features
  EXPECT_EQ(up.block, 3);
  EXPECT_EQ(by_name.at("b.down.weight").cols, up.rows);
  EXPECT_EQ(by_name.at("b.mod.weight").block, BlockMemory::kTables);
  EXPECT_TRUE(by_name.at("b.norm.weight").rows.empty());
}

}  // namespace
}  // namespace atelier::nn
