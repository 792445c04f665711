// Names of layers in every naming, with dots and with underscores.
#include "weights/layer_names.h"

#include <gtest/gtest.h>

namespace atelier::weights {
namespace {

const std::vector<ManifestEntry> kTensors{{"block.0.qkv.weight", {12, 5}}, {"block.0.up.weight", {16, 5}},
                                          {"block.0.qkv.bias", {12}},      {"out.weight", {8, 4}},
                                          {"conv.weight", {4, 3, 2, 2}},   {"turned.weight", {3, 4}},
                                          {"block.0.mod", {1, 6, 5}}};
const std::vector<NameRule> kRules{
    {"block.{}.qkv", {{"blocks.{}.to_q"}, {"blocks.{}.to_k"}, {"blocks.{}.to_v"}}},
    {"block.{}.qkv", {{"single.{}.linear1", {0, 12}}}},
    {"block.{}.up", {{"single.{}.linear1", {12, 16}}}},
    {"out", {{"last", {4, 4}}, {"last", {0, 4}}}},
    {"block.{}.mod", {{"blocks.{}.modulation"}}},
    {.canonical = "turned", .parts = {{"straight"}}, .is_transposed = true}};

TEST(LayerNames, PartsOfAFusedTensorHaveTheirRows) {
  const LayerNames names(kRules, kTensors);
  const auto* k = names.find("blocks.0.to_k");
  ASSERT_TRUE(k);
  EXPECT_EQ(*k, (LayerPieces{{"block.0.qkv.weight", {12, 5}, 0, {4, 4}, {0, 5}}}));
  EXPECT_EQ(LayerNames::rows_of(*k), 4);
  EXPECT_EQ(LayerNames::cols_of(*k), 5);
}

TEST(LayerNames, ALayerMayLieInSeveralTensorsAndInAnotherOrder) {
  const LayerNames names(kRules, kTensors);
  const auto* linear1 = names.find("single.0.linear1");
  ASSERT_TRUE(linear1);
  EXPECT_EQ(LayerNames::rows_of(*linear1), 28);
  EXPECT_EQ((*linear1)[1], (LayerPiece{"block.0.up.weight", {16, 5}, 12, {0, 16}, {0, 5}}));
  const auto* last = names.find("last");
  ASSERT_TRUE(last);
  EXPECT_EQ(LayerNames::rows_of(*last), 8);
  EXPECT_EQ((*last)[0].first, 4);
  EXPECT_EQ((*last)[0].rows, (Range{0, 4}));
}

TEST(LayerNames, CanonicalNamesAndUnderscoresAreNamesToo) {
  const LayerNames names(kRules, kTensors);
  EXPECT_EQ(LayerNames::cols_of(*names.find("conv")), 12);
  EXPECT_EQ(names.find_flat("blocks_0_to_v"), names.find("blocks.0.to_v"));
  EXPECT_FALSE(names.find("blocks_0_to_v"));
  EXPECT_FALSE(names.find("blocks.1.to_v"));
  EXPECT_FALSE(names.find("straight"));
}

TEST(LayerNames, TablesHaveTheirOwn) {
  const LayerNames names(kRules, kTensors);
  const auto* table = names.find("blocks.0.modulation");
  ASSERT_TRUE(table);
  EXPECT_EQ(*table, (LayerPieces{{"block.0.mod", {1, 6, 5}, 0, {0, 1}, {0, 30}}}));
  EXPECT_FALSE(names.find("block.0.qkv.bias"));
}

TEST(LayerNames, ANameOfTwoLayersBelongsToNeither) {
  const std::vector<ManifestEntry> tensors{{"a.b_c.weight", {2, 2}}, {"a_b.c.weight", {2, 2}}};
  const LayerNames names({}, tensors);
  EXPECT_FALSE(names.find_flat("a_b_c"));
  EXPECT_TRUE(names.find("a.b_c"));
}

}  // namespace
}  // namespace atelier::weights
