// Changing adapters where reading fails half-way.
#include "pipeline/adapted_part.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "nn/streamed_memory.h"
#include "nn/testing.h"
#include "weights/adapter_for_test.h"

namespace atelier::pipeline {
namespace {

constexpr int64_t kSide = 6;
constexpr int kBlocks = 3;

std::string weight_of(int block) {
  return "b." + std::to_string(block) + ".up.weight";
}

// Throws at the read that is `left` reads away.
class Interrupted : public weights::StoreDecorator {
 public:
  Interrupted(std::unique_ptr<weights::WeightStore> base, int& left)
      : StoreDecorator(std::move(base)), left_(left) {}
  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override {
    if (left_-- == 0) throw Error(Kind::kCheckpoint, "the disk is gone");
    base().read_into(out, name, full, rows, cols);
  }

 private:
  int& left_;
};

// Three linears, each in a block of its own, and an adapter of all of them.
struct Loaded {
  int left = -1;
  weights::Tensors plain, lora;
  weights::AdapterFolder folder;
  std::unique_ptr<AdaptedPart> part;
  std::vector<nn::Linear> linears;
  std::unique_ptr<nn::BlockMemory> memory;

  explicit Loaded(bool is_streamed) {
    for (int i = 0; i < kBlocks; ++i) {
      const std::string layer = "b." + std::to_string(i) + ".up";
      plain[weight_of(i)] = weights::numbers({kSide, kSide}, 1 + static_cast<uint64_t>(i));
      lora[layer + ".lora_A.weight"] = weights::numbers({2, kSide}, 11 + static_cast<uint64_t>(i));
      lora[layer + ".lora_B.weight"] = weights::numbers({kSide, 2}, 21 + static_cast<uint64_t>(i));
    }
    part = std::make_unique<AdaptedPart>(std::make_unique<Interrupted>(folder.checkpoint(plain), left));
    build(is_streamed);
  }
  void build(bool is_streamed) {
    nn::BlockSizes sizes;
    if (is_streamed) {
      build_in(sizes);
      memory = std::make_unique<nn::Offloaded>(sizes.bytes(), c10::kCPU);
    } else {
      memory = std::make_unique<nn::Resident>();
    }
    linears.clear();
    part->hold(build_in(*memory));
  }
  nn::Manifest build_in(nn::BlockMemory& place) {
    nn::SingleRank rank;
    const nn::Builder root(part->store(), rank.seams, place, at::TensorOptions(at::kFloat));
    for (int i = 0; i < kBlocks; ++i) {
      const auto b = root.block(i) / "b" / i;
      linears.push_back(b.expand("up", kSide, {Dim{kSide}}, nn::Bias::kNo));
      root.finish_block(i);
    }
    return root.manifest();
  }
  weights::Changes changes() {
    const auto file = folder.adapter(lora);
    std::vector<weights::ManifestEntry> tensors;
    for (const auto& [name, tensor] : plain) tensors.push_back({name, tensor.sizes().vec()});
    return weights::changes_of(file, weights::LayerNames({}, tensors));
  }
  std::vector<at::Tensor> outputs() {
    std::vector<at::Tensor> out;
    const auto x = weights::numbers({4, kSide}, 77);
    const int order[] = {0, 1, 2};
    memory->will_run(order);
    for (int i = 0; i < kBlocks; ++i) {
      memory->before(i);
      out.push_back(linears[static_cast<size_t>(i)](x).clone());
    }
    return out;
  }
};

bool are_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](auto& x, auto& y) { return x.equal(y); });
}

class Adapted : public ::testing::TestWithParam<bool> {};

TEST_P(Adapted, WhatCouldNotBeReadIsReadNextTime) {
  Loaded model(GetParam()), fresh(GetParam());
  const auto before = model.outputs();
  fresh.part->adapt(fresh.changes(), *fresh.memory);
  const auto wanted = fresh.outputs();
  ASSERT_FALSE(are_equal(before, wanted));

  const auto changes = model.changes();
  model.left = 1;  // the first block is adapted, the second one is not
  EXPECT_THROW(model.part->adapt(changes, *model.memory), Error);
  EXPECT_EQ(model.part->adapt(changes, *model.memory).tensors, kBlocks);
  EXPECT_TRUE(are_equal(model.outputs(), wanted));
  EXPECT_EQ(model.part->adapt(changes, *model.memory).tensors, 0);

  model.left = 1;
  EXPECT_THROW(model.part->adapt({}, *model.memory), Error);
  EXPECT_EQ(model.part->adapt(changes, *model.memory).tensors, kBlocks);
  EXPECT_TRUE(are_equal(model.outputs(), wanted));
  model.part->adapt({}, *model.memory);
  EXPECT_TRUE(are_equal(model.outputs(), before));
}

INSTANTIATE_TEST_SUITE_P(Memory, Adapted, ::testing::Bool());

}  // namespace
}  // namespace atelier::pipeline
