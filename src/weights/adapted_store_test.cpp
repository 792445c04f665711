// Merged weights against the formulas, whole and in slices.
#include "weights/adapted_store.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "weights/adapter_for_test.h"

namespace atelier::weights {
namespace {

using List = std::vector<Range>;

double gap(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() ? (a - b).abs().max().item<double>() : INFINITY;
}

at::Tensor pick(const at::Tensor& t, int64_t dim, const List& ranges) {
  std::vector<at::Tensor> parts;
  for (const auto r : ranges) parts.push_back(t.narrow(dim, r.begin, r.size));
  return at::cat(parts, dim);
}

// A fused layer of three, a convolution, and a layer with a bias.
class AdaptedStores : public ::testing::Test {
 protected:
  AdaptedStores() {
    weights_ = {{"q.weight", numbers({4, 6}, 1)}, {"k.weight", numbers({4, 6}, 2)},
                {"v.weight", numbers({4, 6}, 3)}, {"c.weight", numbers({4, 3, 2, 2}, 4)},
                {"o.weight", numbers({5, 6}, 5)}, {"o.bias", numbers({5}, 6)}};
    names_ = LayerNames(rules_, tensors_);
  }
  AdaptedStore store(const std::vector<std::pair<Tensors, double>>& adapters) {
    auto base = folder_.checkpoint(weights_);
    base->adopt(rules_);
    Changes changes;
    int number = 0;
    for (const auto& [tensors, strength] : adapters) {
      const auto file = std::make_shared<const AdapterFile>(
          folder_.write(tensors, {}, ("adapter" + std::to_string(number++) + ".safetensors").c_str()));
      for (const auto& layer : file->layers())
        changes.add(std::make_shared<const LayerChange>(
            LayerChange{file, &layer, strength, *names_.find(layer.name)}));
    }
    return AdaptedStore(std::move(base), std::move(changes));
  }
  // One spelled as the fused tensor, one as its middle part.
  Tensors fused_{{"qkv.lora_down.weight", numbers({2, 6}, 11)}, {"qkv.lora_up.weight", numbers({12, 2}, 12)}};
  Tensors part_{{"k.lora_down.weight", numbers({3, 6}, 13)}, {"k.lora_up.weight", numbers({4, 3}, 14)}};

  at::Tensor whole() const {
    return at::cat({weights_.at("q.weight"), weights_.at("k.weight"), weights_.at("v.weight")});
  }
  at::Tensor fused_delta() const {
    return at::mm(fused_.at("qkv.lora_up.weight"), fused_.at("qkv.lora_down.weight"));
  }
  at::Tensor part_delta() const {
    return at::mm(part_.at("k.lora_up.weight"), part_.at("k.lora_down.weight"));
  }

  AdapterFolder folder_;
  Tensors weights_;
  std::vector<NameRule> rules_{{"qkv", {{"q"}, {"k"}, {"v"}}}};
  std::vector<ManifestEntry> tensors_{
      {"qkv.weight", {12, 6}}, {"c.weight", {4, 3, 2, 2}}, {"o.weight", {5, 6}}, {"o.bias", {5}}};
  LayerNames names_;
};

TEST_F(AdaptedStores, SumsLandInTheRowsOfTheirParts) {
  auto expected = whole() + 0.5 * fused_delta();
  expected.narrow(0, 4, 4) += -2 * part_delta();
  const auto merged = store({{fused_, 0.5}, {part_, -2}});
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}), expected), 1e-5);
  const List rows{{3, 3}, {10, 2}, {7, 0}}, cols{{1, 2}, {4, 1}};
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}, rows, cols), pick(pick(expected, 0, rows), 1, cols)),
            1e-5);
  EXPECT_TRUE(read(store({{fused_, 0}}), "qkv.weight", {12, 6}).equal(whole()));
  EXPECT_TRUE(read(merged, "o.weight", {5, 6}).equal(weights_.at("o.weight")));
}

TEST_F(AdaptedStores, RoundTheSumOnce) {
  const auto merged = store({{fused_, 1}});
  EXPECT_TRUE(read(merged, "qkv.weight", {12, 6}, {}, {}, at::kBFloat16)
                  .equal(read(merged, "qkv.weight", {12, 6}).to(at::kBFloat16)));
}

// Lengths of whole rows whatever is read, with the strength inside and without the adapters before.
TEST_F(AdaptedStores, RowsTakeTheLengthsOfDora) {
  auto dora = part_;
  dora["k.lora_magnitude_vector"] = numbers({4}, 15).abs();
  auto expected = whole() + fused_delta();
  auto k = expected.narrow(0, 4, 4);
  k += 0.6 * part_delta();
  const auto alone = weights_.at("k.weight") + 0.6 * part_delta();
  k *= (dora.at("k.lora_magnitude_vector") / at::linalg_vector_norm(alone, 2, 1)).unsqueeze(1);
  const auto merged = store({{fused_, 1}, {dora, 0.6}});
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}), expected), 1e-5);
  const List rows{{2, 4}}, cols{{3, 2}, {0, 1}};
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}, rows, cols), pick(pick(expected, 0, rows), 1, cols)),
            1e-5);
  EXPECT_GT(gap(read(store({{dora, 0.6}, {fused_, 1}}), "qkv.weight", {12, 6}), expected),
            1e-3);  // other order
}

// c1 (W + D1) + D2, then c2 times that and D3, where each c knows W and its own D.
TEST_F(AdaptedStores, SeveralDorasOfOneLayer) {
  auto one = part_, two = part_;
  one["k.lora_magnitude_vector"] = numbers({4}, 26).abs();
  two["k.lora_magnitude_vector"] = numbers({4}, 27).abs();
  const auto w = weights_.at("k.weight"), first = w + 0.5 * part_delta(), last = w - part_delta();
  const auto factor = [](const Tensors& dora, const at::Tensor& sum) {
    return (dora.at("k.lora_magnitude_vector") / at::linalg_vector_norm(sum, 2, 1)).unsqueeze(1);
  };
  const auto expected =
      factor(two, last) * (factor(one, first) * first + fused_delta().narrow(0, 4, 4) - part_delta());
  const auto merged = store({{one, 0.5}, {fused_, 1}, {two, -1}});
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}, {{4, 4}}), expected), 1e-5);
}

TEST_F(AdaptedStores, ColumnsTakeTheLengthsOfDora) {
  auto dora = fused_;
  dora["qkv.dora_scale"] = numbers({1, 6}, 16).abs();
  auto expected = whole() + fused_delta();
  expected *= dora.at("qkv.dora_scale") / at::linalg_vector_norm(expected, 2, 0, true);
  const auto merged = store({{dora, 1}});
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}), expected), 1e-5);
  const List rows{{5, 3}}, cols{{2, 2}};
  EXPECT_LT(gap(read(merged, "qkv.weight", {12, 6}, rows, cols), pick(pick(expected, 0, rows), 1, cols)),
            1e-5);
  auto behind = whole();
  behind.narrow(0, 4, 4) += part_delta();
  behind += fused_delta();
  behind *= dora.at("qkv.dora_scale") / at::linalg_vector_norm(whole() + fused_delta(), 2, 0, true);
  EXPECT_LT(gap(read(store({{part_, 1}, {dora, 1}}), "qkv.weight", {12, 6}), behind), 1e-5);
}

TEST_F(AdaptedStores, ConvolutionsOfEitherKindOfLengths) {
  const Tensors lora{{"c.lora_A.weight", numbers({2, 3, 2, 2}, 17)},
                     {"c.lora_B.weight", numbers({4, 2, 1, 1}, 18)}};
  const auto sum = weights_.at("c.weight") +
                   at::mm(lora.at("c.lora_B.weight").view({4, 2}), lora.at("c.lora_A.weight").view({2, 12}))
                       .view({4, 3, 2, 2});
  EXPECT_LT(gap(read(store({{lora, 1}}), "c.weight", {4, 3, 2, 2}), sum), 1e-5);
  auto rows = lora;
  rows["c.lora_magnitude_vector"] = numbers({1, 4, 1, 1}, 19).abs();
  const auto by_row = sum * (rows.at("c.lora_magnitude_vector").view({4, 1, 1, 1}) /
                             at::linalg_vector_norm(sum, 2, {1, 2, 3}, true));
  EXPECT_LT(gap(read(store({{rows, 1}}), "c.weight", {4, 3, 2, 2}), by_row), 1e-5);
  const List cut{{1, 2}};
  EXPECT_LT(
      gap(read(store({{rows, 1}}), "c.weight", {4, 3, 2, 2}, cut, cut), pick(pick(by_row, 0, cut), 1, cut)),
      1e-5);
  auto columns = lora;
  columns["c.dora_scale"] = numbers({1, 3, 1, 1}, 20).abs();
  const auto by_column = sum * (columns.at("c.dora_scale") / at::linalg_vector_norm(sum, 2, {0, 2, 3}, true));
  EXPECT_LT(gap(read(store({{columns, 1}}), "c.weight", {4, 3, 2, 2}, {}, cut), pick(by_column, 1, cut)),
            1e-5);
}

TEST_F(AdaptedStores, BiasesAndWholeDifferencesAreAdded) {
  const Tensors lora{{"o.lora_down.weight", numbers({2, 6}, 21)},
                     {"o.lora_up.weight", numbers({5, 2}, 22)},
                     {"o.alpha", at::full({}, 1.0F)},
                     {"o.lora_up.bias", numbers({5}, 23)}};
  const auto merged = store({{lora, 0.5}});
  EXPECT_LT(gap(read(merged, "o.bias", {5}), weights_.at("o.bias") + 0.25 * lora.at("o.lora_up.bias")), 1e-6);
  const Tensors whole{{"o.diff", numbers({5, 6}, 24)}, {"o.diff_b", numbers({5}, 25)}};
  const auto differs = store({{whole, 2}});
  EXPECT_LT(gap(read(differs, "o.weight", {5, 6}), weights_.at("o.weight") + 2 * whole.at("o.diff")), 1e-5);
  EXPECT_LT(gap(read(differs, "o.bias", {5}, {{1, 3}}),
                (weights_.at("o.bias") + 2 * whole.at("o.diff_b")).narrow(0, 1, 3)),
            1e-5);
}

TEST_F(AdaptedStores, OnlyWhatDiffersIsNamed) {
  const auto one = store({{fused_, 1}}), two = store({{part_, 1}});
  const Tensors other{{"o.diff_b", numbers({5}, 25)}};
  const auto three = store({{fused_, 1}, {other, 1}});
  EXPECT_TRUE(Changes::differing(one.changes(), one.changes()).empty());
  EXPECT_EQ(Changes::differing(one.changes(), two.changes()).size(), 1u);
  EXPECT_TRUE(Changes::differing(Changes(), three.changes()).contains("o.bias"));
  EXPECT_FALSE(Changes::differing(Changes(), three.changes()).contains("o.weight"));
}

TEST_F(AdaptedStores, ColumnsBehindALayersOwnGoToATensorThatNoCheckpointHas) {
  const Tensors wide{{"o.lora_down.weight", numbers({2, 10}, 31)}, {"o.lora_up.weight", numbers({5, 2}, 32)}};
  const auto file = std::make_shared<const AdapterFile>(folder_.write(wide, {}, "wide.safetensors"));
  LayerPieces pieces = *names_.find("o");
  pieces.push_back({"o.added.weight", {5, 4}, 0, {0, 5}, {0, 4}, 6});
  Changes changes;
  changes.add(std::make_shared<const LayerChange>(LayerChange{file, &file->layers().front(), 0.5, pieces}));
  auto base = folder_.checkpoint(weights_);
  base->adopt(rules_);
  const AdaptedStore store(std::move(base), std::move(changes));
  const auto read = [&](const char* name, at::IntArrayRef sizes) {
    auto out = at::ones(sizes);
    store.read_into(out, name, sizes, {}, {});
    return out;
  };
  const auto delta = 0.5 * at::mm(wide.at("o.lora_up.weight"), wide.at("o.lora_down.weight"));
  EXPECT_LT(gap(read("o.weight", {5, 6}), weights_.at("o.weight") + delta.narrow(1, 0, 6)), 1e-6);
  EXPECT_LT(gap(read("o.added.weight", {5, 4}), delta.narrow(1, 6, 4)), 1e-6);
  EXPECT_EQ(gap(read("c.added.weight", {5, 4}), at::zeros({5, 4})), 0) << "nobody adds to it";
}

}  // namespace
}  // namespace atelier::weights
