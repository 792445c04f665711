#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/testing.h"
#include "weights/save.h"
#include "weights/store.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;

at::Tensor read(const WeightStore& store, std::string_view name, const std::vector<int64_t>& full,
                std::vector<Range> rows = {}, std::vector<Range> cols = {}) {
  auto shape = full;
  if (!rows.empty()) shape[0] = rows[0].size;
  if (!cols.empty()) shape[1] = cols[0].size;
  at::Tensor out = at::empty(shape, at::TensorOptions(at::kFloat));
  store.read_into(out, name, full, rows, cols);
  return out;
}

TEST(Dummy, SlicesAgreeWithTheWhole) {
  const auto a = WeightStore::dummy(5), b = WeightStore::dummy(5);
  const std::vector<int64_t> full{3000, 3000};  // several blocks
  const auto whole = read(*a, "x.weight", full);
  EXPECT_TRUE(at::equal(read(*b, "x.weight", full, {{1390, 100}}, {{7, 2000}}),
                        whole.narrow(0, 1390, 100).narrow(1, 7, 2000)));
  EXPECT_FALSE(at::equal(read(*WeightStore::dummy(6), "x.weight", full), whole));
  EXPECT_FALSE(at::equal(read(*a, "y.weight", full), whole));
  EXPECT_FALSE(at::equal(whole.narrow(0, 0, 1398), whole.narrow(0, 1398, 1398)));  // blocks differ
  EXPECT_NEAR(whole.std().item<double>() * std::sqrt(3000.0), 1, 0.01);
  EXPECT_NEAR(whole.mean().item<double>(), 0, 1e-4);
}

TEST(Dummy, NormsAreOnesAndBiasesSmall) {
  const auto store = WeightStore::dummy(1);
  EXPECT_TRUE(read(*store, "norm.weight", {64}).eq(1).all().item<bool>());
  const auto bias = read(*store, "norm.bias", {64});
  EXPECT_LT(bias.abs().max().item<double>(), 0.2);
  EXPECT_GT(bias.abs().max().item<double>(), 0);
  EXPECT_NEAR(read(*store, "conv.weight", {64, 16, 3, 3}).std().item<double>(), 1.0 / 12, 0.01);
}

TEST(Dummy, HasEverythingButWhatIsAbsent) {
  const auto store = WeightStore::dummy(1, {"*.bias"});
  EXPECT_TRUE(store->has("a.weight"));
  EXPECT_FALSE(store->has("a.bias"));
}

SaveOptions options_for(const TemporaryFolder& folder) {
  SaveOptions options{folder.path()};
  options.dtype = at::kFloat;
  options.max_shard_bytes = 6000;
  return options;
}

TEST(Save, RefusesRulesThatLeaveHoles) {
  const TemporaryFolder folder;
  const auto store = WeightStore::dummy(1);
  read(*store, "a.weight", {4, 4});
  const NameRule rules[] = {{"a", {{"fused", {8, 4}}}}};
  EXPECT_THAT(message_of(Kind::kUsage, [&] { save_checkpoint(*store, rules, options_for(folder)); }),
              HasSubstr("undefined"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace atelier::weights
