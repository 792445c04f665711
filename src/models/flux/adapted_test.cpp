// A LoRA that diffusers wrote, against the weights that diffusers merged.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/testing.h"
#include "models/flux/names.h"
#include "nn/testing.h"
#include "weights/adapted_store.h"
#include "weights/tensors.h"

namespace atelier::models {
namespace {

using ::testing::HasSubstr;
using weights::AdaptedStore;
using weights::Tensors;
using weights::WeightStore;

// Of seven layers of the recorded model: weights, a LoRA with factors four wide, and three of them with 0.8 of it merged.
const std::filesystem::path kFolder = "src/models/flux/testdata/lora";

std::unique_ptr<WeightStore> base_store() {
  auto store = WeightStore::open(kFolder / "base.safetensors");
  store->adopt(names_flux_diffusers());
  return store;
}

AdaptedStore adapted(double strength = 0.8) {
  return {base_store(), weights::read_lora(kFolder / "lora.safetensors", "transformer", strength)};
}

int64_t total(std::span<const Range> ranges) {
  int64_t n = 0;
  for (const auto r : ranges) n += r.size;
  return n;
}

at::Tensor read(const WeightStore& store, std::string_view name, std::vector<Range> rows = {},
                std::vector<Range> cols = {}, at::ScalarType type = at::kFloat) {
  const auto full = store.shape(name);
  auto sizes = full;
  if (!rows.empty()) sizes[0] = total(rows);
  if (!cols.empty()) sizes[1] = total(cols);
  auto out = at::empty(sizes, at::TensorOptions(type));
  store.read_into(out, name, full, rows, cols);
  return out;
}

at::Tensor pick(const at::Tensor& t, int64_t dim, std::span<const Range> ranges) {
  std::vector<at::Tensor> parts;
  for (const auto r : ranges) parts.push_back(t.narrow(dim, r.begin, r.size));
  return at::cat(parts, dim);
}

TEST(AdaptedStore, MergesAsDiffusersDoes) {
  const auto store = adapted();
  const auto plain = base_store();
  const auto merged = weights::read_tensors(kFolder / "merged.safetensors");
  ASSERT_EQ(merged.size(), 3u);
  for (const auto& [name, expected] : merged) {
    EXPECT_LT(nn::distance(read(store, name), expected), 1e-6) << name;
    EXPECT_GT(nn::distance(read(*plain, name), expected), 1e-3) << name << " does not change";
    EXPECT_TRUE(read(adapted(0), name).equal(read(*plain, name))) << name;
  }
  store.check();
}

// A fused tensor takes the changes of all its parts, each in its rows.
TEST(AdaptedStore, PartsOfAFusedTensorTakeTheirOwnChanges) {
  const auto store = adapted();
  const auto merged = weights::read_tensors(kFolder / "merged.safetensors");
  const auto qkv = read(store, "double.0.image.qkv.weight");
  EXPECT_LT(nn::distance(qkv.narrow(0, 64, 64), merged.at("transformer_blocks.0.attn.to_k.weight")), 1e-6);
  EXPECT_TRUE(qkv.narrow(0, 0, 64).equal(read(store, "transformer_blocks.0.attn.to_q.weight")));
  const auto single = read(store, "single.0.qkv.weight");
  EXPECT_LT(
      nn::distance(single.narrow(0, 128, 64), merged.at("single_transformer_blocks.0.attn.to_v.weight")),
      1e-6);
}

// Only the rows of B and the columns of A that belong to a slice are added to it.
TEST(AdaptedStore, ASliceIsThatOfTheWhole) {
  const auto store = adapted();
  const std::vector<Range> rows{{16, 16}, {80, 16}, {120, 24}, {150, 0}}, cols{{40, 20}, {3, 1}};
  for (const char* name : {"double.0.image.qkv.weight", "single.0.qkv.weight"}) {
    const auto whole = read(store, name);
    EXPECT_LT(nn::distance(read(store, name, rows), pick(whole, 0, rows)), 1e-6);
    EXPECT_LT(nn::distance(read(store, name, rows, cols), pick(pick(whole, 0, rows), 1, cols)), 1e-6);
  }
  const std::vector<Range> closing{{32, 32}, {192, 64}};  // contract's: heads and features
  EXPECT_LT(nn::distance(read(store, "single.0.out.weight", {}, closing),
                         pick(read(store, "single.0.out.weight"), 1, closing)),
            1e-6);
}

// One rounding, of the sum: the change is not rounded before it is added.
TEST(AdaptedStore, RoundsTheSumOnce) {
  const auto store = adapted();
  const char* name = "single.0.qkv.weight";
  EXPECT_TRUE(read(store, name, {}, {}, at::kBFloat16).equal(read(store, name).to(at::kBFloat16)));
  EXPECT_LT(nn::distance(read(store, name, {}, {}, at::kDouble), read(store, name)), 1e-6);
}

// In eight bits too: what is rounded is the sum, not the weights that it is added to.
TEST(AdaptedStore, IsMergedBeforeWeightsBecomeEightBit) {
  const auto store = adapted();
  nn::SingleRank whole;
  const auto b = whole.builder(store, at::TensorOptions(at::kBFloat16)).of_tier(nn::Tier::kFast).block(0);
  b.expand("single.0.qkv", 64, {Dim{192}}, nn::Bias::kNo);
  const auto& held = b.manifest().front();
  const auto want = nn::quantised(read(store, "single.0.qkv.weight"), at::kFloat8_e4m3fn),
             plain = nn::quantised(read(*base_store(), "single.0.qkv.weight"), at::kFloat8_e4m3fn);
  EXPECT_TRUE(held.tensor.view(at::kByte).equal(want.rows().view(at::kByte)));
  EXPECT_TRUE(held.scale.equal(want.scale()));
  EXPECT_FALSE(held.tensor.view(at::kByte).equal(plain.rows().view(at::kByte)));
}

TEST(AdaptedStore, TwoAdaptersStandInAChain) {
  const AdaptedStore both(std::make_unique<AdaptedStore>(adapted(0.5)),
                          weights::read_lora(kFolder / "lora.safetensors", "transformer", 0.3));
  const char* name = "double.0.image.qkv.weight";
  EXPECT_LT(nn::distance(read(both, name), read(adapted(0.8), name)), 1e-6);
}

TEST(AdaptedStore, LayersThatTheModelLacksAreNamed) {
  auto changes = weights::read_lora(kFolder / "lora.safetensors", "transformer", 1);
  auto& wrong = changes["transformer_blocks.7.attn.to_q"];
  wrong = changes.at("transformer_blocks.0.attn.to_q");
  changes["single_transformer_blocks.0.proj_out"] = wrong;
  const auto message = message_of(Kind::kCheckpoint, [&] { AdaptedStore(base_store(), changes); });
  EXPECT_THAT(message, HasSubstr("\"transformer_blocks.7.attn.to_q\" (no such layer)"));
  EXPECT_THAT(message, HasSubstr("\"single_transformer_blocks.0.proj_out\" of shape [64, 320]"));
}

class LoraFile : public ::testing::Test {
 protected:
  std::string error_after(const std::function<void(Tensors&)>& change) {
    auto tensors = weights::read_tensors(kFolder / "lora.safetensors");
    change(tensors);
    weights::write_tensors(folder_ / "lora.safetensors", tensors);
    return message_of(Kind::kCheckpoint,
                      [&] { weights::read_lora(folder_ / "lora.safetensors", "transformer", 1); });
  }
  TemporaryFolder folder_;
};

TEST_F(LoraFile, AlphaScalesAndDefaultsToTheRank) {
  const std::string layer = "transformer_blocks.0.attn.to_q";
  EXPECT_EQ(error_after([&](Tensors& t) { t["transformer." + layer + ".alpha"] = at::full({}, 2.0F); }),
            "no error");
  const auto changes = weights::read_lora(folder_ / "lora.safetensors", "transformer", 0.5);
  EXPECT_EQ(changes.at(layer).scale, 0.25);
  EXPECT_EQ(changes.at("transformer_blocks.0.attn.to_k").scale, 0.5);
}

TEST_F(LoraFile, WhatIsNoLoraIsRefused) {
  const std::string layer = "transformer.transformer_blocks.0.attn.to_q";
  EXPECT_THAT(error_after([&](Tensors& t) { t.erase(layer + ".lora_A.weight"); }), HasSubstr("only one of"));
  EXPECT_THAT(error_after([&](Tensors& t) { t[layer + ".dora_scale"] = at::full({64}, 1.0F); }),
              HasSubstr("dora_scale\" is no part of a LoRA"));
  EXPECT_THAT(error_after([&](Tensors& t) {
                t["text_encoder.q.lora_A.weight"] = at::full({4, 4}, 1.0F);
              }),
              HasSubstr("is no part of a LoRA for the transformer"));
  EXPECT_THAT(error_after([&](Tensors& t) {
                t[layer + ".lora_A.weight"] = at::full({5, 64}, 1.0F);
              }),
              HasSubstr("no factors of a matrix"));
}

}  // namespace
}  // namespace atelier::models
