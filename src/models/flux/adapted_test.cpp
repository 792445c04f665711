// A LoRA that diffusers wrote, against the weights that diffusers merged, and the same one in
// other trainers' names.
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "models/flux/names.h"
#include "nn/testing.h"
#include "weights/adapter_for_test.h"

namespace atelier::models {
namespace {

using nn::distance;
using weights::AdaptedStore;
using weights::AdapterFile;
using weights::Changes;
using weights::LayerNames;
using weights::Tensors;
using weights::WeightStore;

// Of seven layers of the recorded model: weights, a LoRA with factors four wide, and three of them with 0.8
// of it merged.
const std::filesystem::path kFolder = "src/models/flux/testdata/lora";
constexpr int64_t kWidth = 64;
const std::vector<weights::ManifestEntry> kTensors{{"double.0.image.qkv.weight", {192, 64}},
                                                   {"single.0.qkv.weight", {192, 64}},
                                                   {"single.0.out.weight", {64, 320}}};

std::unique_ptr<WeightStore> base_store() {
  auto store = WeightStore::open(kFolder / "base.safetensors");
  store->adopt(names_flux_diffusers());
  return store;
}

LayerNames names() {
  auto rules = names_flux_diffusers();
  for (auto& rule : names_flux_original(kWidth)) rules.push_back(std::move(rule));
  for (auto& rule : names_flux_xlabs()) rules.push_back(std::move(rule));
  return LayerNames(rules, kTensors);
}

AdaptedStore adapted(double strength = 0.8) {
  return AdaptedStore(base_store(),
                      weights::changes_of(std::make_shared<const AdapterFile>(kFolder / "lora.safetensors"),
                                          names(), strength, "transformer."));
}

at::Tensor read(const WeightStore& store, std::string_view name) {
  return weights::read(store, name, store.shape(name));
}

TEST(FluxAdapters, MergeAsDiffusersDoes) {
  const auto store = adapted();
  const auto plain = base_store();
  const auto merged = weights::read_tensors(kFolder / "merged.safetensors");
  ASSERT_EQ(merged.size(), 3u);
  const auto qkv = read(store, "double.0.image.qkv.weight"), single = read(store, "single.0.qkv.weight");
  EXPECT_LT(distance(qkv.narrow(0, 64, 64), merged.at("transformer_blocks.0.attn.to_k.weight")), 1e-6);
  EXPECT_LT(distance(single.narrow(0, 128, 64), merged.at("single_transformer_blocks.0.attn.to_v.weight")),
            1e-6);
  EXPECT_LT(
      distance(read(store, "single.0.out.weight"), merged.at("single_transformer_blocks.0.proj_out.weight")),
      1e-6);
  EXPECT_GT(distance(read(*plain, "double.0.image.qkv.weight"), qkv), 1e-3);
  EXPECT_TRUE(read(adapted(0), "single.0.qkv.weight").equal(read(*plain, "single.0.qkv.weight")));
  store.check();
}

// kohya's and XLabs' tensors for the same layers: q, k and v in one, without the gates of the MLP where
// linear1 has them.
TEST(FluxAdapters, OtherTrainersNamesMeanTheSameLayers) {
  const auto lora = weights::read_tensors(kFolder / "lora.safetensors");
  const std::string block = "transformer.transformer_blocks.0.attn.";
  // Three pairs as one that is three times as wide: block-diagonal.
  std::vector<at::Tensor> downs, ups;
  for (int i = 0; i < 3; ++i) {
    const std::string part = block + std::vector<std::string>{"to_q", "to_k", "to_v"}[static_cast<size_t>(i)];
    downs.push_back(lora.at(part + ".lora_A.weight"));
    auto up = at::full({192, 4}, 0.0F);
    up.narrow(0, i * kWidth, kWidth).copy_(lora.at(part + ".lora_B.weight"));
    ups.push_back(up);
  }
  const auto down = at::cat(downs), up = at::cat(ups, 1);
  const weights::AdapterFolder folder;
  const auto table = names();
  for (const bool is_flat : {false, true}) {
    const std::string name = is_flat ? "double_blocks_0_img_attn_qkv" : "double_blocks.0.processor.qkv_lora1";
    const auto file = folder.adapter({{name + ".lora_down.weight", down}, {name + ".lora_up.weight", up}});
    const auto* pieces = is_flat ? table.find_flat(name) : table.find(name);
    ASSERT_TRUE(pieces) << name;
    Changes changes;
    changes.add(std::make_shared<const weights::LayerChange>(
        weights::LayerChange{file, &file->layers().front(), 0.8, *pieces}));
    const AdaptedStore store(base_store(), std::move(changes));
    EXPECT_LT(
        distance(read(store, "double.0.image.qkv.weight"), read(adapted(), "double.0.image.qkv.weight")),
        1e-6);
  }
  EXPECT_EQ(LayerNames::rows_of(*table.find_flat("single_blocks_0_linear1")), 3 * kWidth);
}

// In eight bits too: what is rounded is the sum, not the weights that it is added to.
TEST(FluxAdapters, AreMergedBeforeWeightsBecomeEightBit) {
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

}  // namespace
}  // namespace atelier::models
