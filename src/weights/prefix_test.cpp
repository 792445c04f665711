#include "weights/prefix.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "base/testing.h"
#include "weights/store.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

const std::vector<std::string> kAsked{"in.weight", "block.0.qkv.weight", "block.1.qkv.weight"};
const std::vector<NameRule> kRules{{"block.{}.qkv", {{"layers.{}.q"}, {"layers.{}.k"}}},
                                   {"in", {{"img_in"}}}};

std::string first(const std::vector<std::string>& names) {
  const auto places = find_places(names, kRules, kAsked);
  return places.empty() ? "none" : places.front().prefix + " " + std::to_string(places.front().found);
}

TEST(Places, AnyPrefixIsFound) {
  EXPECT_EQ(first({"img_in.weight", "layers.0.q.weight", "layers.0.k.weight"}), " 2");
  EXPECT_EQ(first({"a.b.img_in.weight", "a.b.layers.0.q.weight", "x.in.weight"}), "a.b. 2");
  EXPECT_EQ(first({"net.in.weight", "net.block.1.qkv.weight", "other"}), "net. 2");
  EXPECT_EQ(first({"mini.weight", "net_inn.weight", "in.weight.x"}), "none");
  EXPECT_EQ(first({std::string(4096, '.'), "in.weight"}), " 1");
}

TEST(Places, APrefixNeedNotEndAtADot) {
  EXPECT_EQ(first({"modelimg_in.weight", "modellayers.0.q.weight", "modellayers.0.k.weight"}), "model 2");
  EXPECT_EQ(first({"net_in.weight", "net_block.0.qkv.weight", "net_block.1.qkv.weight"}), "net_ 3");
  EXPECT_EQ(first({"a.net/in.weight", "a.net/block.0.qkv.weight", "vae.x", "vae.y"}), "a.net/ 2");
  // A few tensors that happen to end like it are no model, and one behind a dot comes first.
  EXPECT_EQ(first({"xin.weight", "a", "b", "c"}), "none");
  EXPECT_EQ(first({"x.in.weight", "x.block.0.qkv.weight", "y_in.weight", "y_block.1.qkv.weight"}), "x. 2");
}

TEST(Sections, HoldWhatStandsBehindTheirPrefix) {
  const TemporaryFolder folder;
  write_tensors(folder / "a.safetensors",
                {{"net.in.weight", at::ones({1})}, {"vae.in.weight", at::ones({2})}, {"b", at::ones({3})}});
  const auto inner = WeightStore::open(folder / "a.safetensors", {"net.", {}});
  EXPECT_EQ(inner->names(), std::vector<std::string>{"in.weight"});
  const auto outer = WeightStore::open(folder / "a.safetensors", {"", {"vae."}});
  EXPECT_EQ(outer->names(), (std::vector<std::string>{"b", "net.in.weight"}));
}

TEST(Rules, AMatrixThatLiesOnItsSideIsTurned) {
  const TemporaryFolder folder;
  const auto side = at::arange(12, at::kFloat).view({3, 4});
  write_tensors(folder / "a.safetensors", {{"projection", side}, {"conv.weight", side.view({3, 4, 1, 1})}});
  const auto store = WeightStore::open(folder / "a.safetensors");
  store->adopt(std::vector<NameRule>{
      {.canonical = "turned.weight", .parts = {{"projection"}}, .is_transposed = true}});
  at::Tensor out = at::ones({2, 3});
  const Range rows[] = {{1, 2}};
  store->read_into(out, "turned.weight", {4, 3}, rows, {});
  EXPECT_TRUE(at::equal(out, side.t().narrow(0, 1, 2)));
  at::Tensor whole = at::ones({3, 4});  // a 1x1 convolution is a linear
  store->read_into(whole, "conv.weight", {3, 4}, {}, {});
  EXPECT_TRUE(at::equal(whole, side));
  store->check({});
}

}  // namespace
}  // namespace atelier::weights
