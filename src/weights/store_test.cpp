#include "weights/store.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/files.h"
#include "base/json.h"
#include "base/testing.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

at::Tensor counting(const std::vector<int64_t>& shape, double first = 0) {
  int64_t n = 1;
  for (const auto s : shape) n *= s;
  return at::arange(n, at::kFloat).add_(first).view(shape);
}

at::Tensor read(const WeightStore& store, std::string_view name, const std::vector<int64_t>& full,
                std::vector<Range> rows = {}, std::vector<Range> cols = {},
                at::ScalarType dtype = at::kFloat) {
  auto shape = full;
  const auto total = [](const std::vector<Range>& ranges) {
    int64_t n = 0;
    for (const auto r : ranges) n += r.size;
    return n;
  };
  if (!rows.empty()) shape[0] = total(rows);
  if (!cols.empty()) shape[1] = total(cols);
  at::Tensor out = at::full(shape, 7, at::TensorOptions(dtype));
  store.read_into(out, name, full, rows, cols);
  return out;
}

at::Tensor slice(const at::Tensor& t, int64_t dim, const std::vector<Range>& ranges) {
  std::vector<at::Tensor> parts;
  for (const auto r : ranges) parts.push_back(t.narrow(dim, r.begin, r.size));
  return at::cat(parts, dim);
}

// q, k, v of two blocks, a 3-D table and one tensor whose bytes are not aligned.
class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Tensors t;
    for (const char* block : {"0", "1"}) {
      const double base = block[0] == '1' ? 1000 : 0;
      for (const char* which : {"q", "k", "v"}) {
        const std::string name = str("blocks.", block, ".to_", which);
        t[name + ".weight"] = counting({4, 6}, base + 100 * (which[0] - 'a'));
        t[name + ".bias"] = counting({4}, base + which[0]);
      }
    }
    t["table"] = counting({2, 5, 3});
    t["byte"] = at::full({3}, 1, at::TensorOptions(at::kByte));
    tensors_ = t;
    write_tensors(folder_ / "model.safetensors", t);
  }
  static std::vector<NameRule> rules(int axis) {
    return {{"b.{}.qkv", {{"blocks.{}.to_q"}, {"blocks.{}.to_k"}, {"blocks.{}.to_v"}}, axis}};
  }
  at::Tensor stacked(const char* suffix, int64_t dim) const {
    return at::cat({tensors_.at(str("blocks.1.to_q", suffix)), tensors_.at(str("blocks.1.to_k", suffix)),
                    tensors_.at(str("blocks.1.to_v", suffix))},
                   dim);
  }
  TemporaryFolder folder_;
  Tensors tensors_;
};

TEST_F(StoreTest, StacksPartsAndCutsRowsAndColumns) {
  const auto store = WeightStore::open(folder_.path());
  store->adopt(rules(0));
  EXPECT_TRUE(store->has("b.1.qkv.weight"));
  EXPECT_FALSE(store->has("b.2.qkv.weight"));
  EXPECT_EQ(store->shape("b.1.qkv.weight"), (std::vector<int64_t>{12, 6}));
  const auto whole = stacked(".weight", 0);
  EXPECT_TRUE(at::equal(read(*store, "b.1.qkv.weight", {12, 6}), whole));
  const std::vector<Range> rows{{1, 2}, {3, 3}, {11, 1}, {0, 1}}, cols{{4, 2}, {0, 1}};
  EXPECT_TRUE(at::equal(read(*store, "b.1.qkv.weight", {12, 6}, rows), slice(whole, 0, rows)));
  EXPECT_TRUE(at::equal(read(*store, "b.1.qkv.weight", {12, 6}, {}, cols), slice(whole, 1, cols)));
  EXPECT_TRUE(
      at::equal(read(*store, "b.1.qkv.weight", {12, 6}, rows, cols), slice(slice(whole, 0, rows), 1, cols)));
  EXPECT_TRUE(at::equal(read(*store, "b.1.qkv.bias", {12}, rows), slice(stacked(".bias", 0), 0, rows)));
  EXPECT_EQ(read(*store, "b.1.qkv.weight", {12, 6}, {{3, 0}}).numel(), 0);
  store->check();
}

TEST_F(StoreTest, StacksAlongColumns) {
  const auto store = WeightStore::open(folder_.path());
  store->adopt(rules(1));
  const auto whole = stacked(".weight", 1);
  const std::vector<Range> rows{{1, 3}}, cols{{4, 10}, {17, 1}};
  EXPECT_TRUE(at::equal(read(*store, "b.1.qkv.weight", {4, 18}), whole));
  EXPECT_TRUE(
      at::equal(read(*store, "b.1.qkv.weight", {4, 18}, rows, cols), slice(slice(whole, 0, rows), 1, cols)));
  read(*store, "b.1.qkv.bias", {12});
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { store->check(); }), HasSubstr("cannot be stacked"));
}

TEST_F(StoreTest, CutsColumnsOfTensorsWithMoreDimensions) {
  const auto store = WeightStore::open(folder_ / "model.safetensors");
  const std::vector<Range> cols{{3, 2}, {1, 1}};
  EXPECT_TRUE(at::equal(read(*store, "table", {2, 5, 3}, {{1, 1}}, cols),
                        slice(tensors_.at("table").narrow(0, 1, 1), 1, cols)));
}

TEST_F(StoreTest, AgreesWithTorchOnRandomSlices) {
  std::mt19937 random(3);
  const auto pick = [&](int64_t n) {
    std::vector<Range> out;
    for (auto i = 1 + random() % 3; i > 0; --i) {
      const auto begin = static_cast<int64_t>(random() % n);
      out.push_back({begin, static_cast<int64_t>(random() % (n - begin + 1))});
    }
    return out;
  };
  for (const int axis : {0, 1}) {
    const auto store = WeightStore::open(folder_.path());
    store->adopt(rules(axis));
    const auto whole = stacked(".weight", axis);
    for (int i = 0; i < 200; ++i) {
      const auto rows = pick(whole.size(0)), cols = pick(whole.size(1));
      ASSERT_TRUE(at::equal(read(*store, "b.1.qkv.weight", whole.sizes().vec(), rows, cols),
                            slice(slice(whole, 0, rows), 1, cols)));
    }
  }
}

TEST_F(StoreTest, LaterSpellingsApplyWhereTheirPartsExist) {
  const auto store = WeightStore::open(folder_.path());
  const NameRule both[] = {
      {"b.{}.qkv", {{"layers.{}.fused"}}}, rules(0)[0], {"t", {{"table"}}}, {"all", {{"blocks"}}}};
  store->adopt(both);
  EXPECT_TRUE(store->has("b.0.qkv.weight"));
  EXPECT_TRUE(store->has("t"));
  EXPECT_TRUE(at::equal(read(*store, "all.1.to_q.bias", {4}), tensors_.at("blocks.1.to_q.bias")));
}

TEST_F(StoreTest, PartsWithRowRangesCutFusedTensors) {
  const auto store = WeightStore::open(folder_.path());
  const NameRule cut[] = {{"swapped", {{"blocks.0.to_q", {2, 2}}, {"blocks.0.to_q", {0, 2}}}},
                          {"beyond", {{"blocks.0.to_q", {2, 3}}}}};
  store->adopt(cut);
  const auto& q = tensors_.at("blocks.0.to_q.weight");
  EXPECT_TRUE(at::equal(read(*store, "swapped.weight", {4, 6}), slice(q, 0, {{2, 2}, {0, 2}})));
  EXPECT_TRUE(at::equal(read(*store, "swapped.bias", {4}, {{1, 2}}),
                        slice(tensors_.at("blocks.0.to_q.bias"), 0, {{3, 1}, {0, 1}})));
  read(*store, "beyond.weight", {3, 6});
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { store->check(); }), HasSubstr("rows 2 to 5 are wanted"));
}

TEST_F(StoreTest, ConvertsTypes) {
  const auto store = WeightStore::open(folder_.path());
  const auto& q = tensors_.at("blocks.0.to_q.weight");
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kDouble}) {
    EXPECT_TRUE(at::equal(read(*store, "blocks.0.to_q.weight", {4, 6}, {}, {}, dtype), q.to(dtype)));
  }
  EXPECT_TRUE(at::equal(read(*store, "byte", {3}), at::full({3}, 1, at::TensorOptions(at::kFloat))));
}

TEST(Store, ReadsEveryStoredTypeAndTensorsOfManyTasks) {
  const TemporaryFolder folder;
  const at::Tensor big = at::randn({700, 1100});
  Tensors t;
  for (const auto dtype :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    t[at::toString(dtype)] = big.to(dtype);
  }
  write_tensors(folder / "model.safetensors", t);
  const auto store = WeightStore::open(folder.path());
  for (const auto& [name, stored] : t) {
    EXPECT_TRUE(at::equal(read(*store, name, {700, 1100}), stored.to(at::kFloat))) << name;
    EXPECT_TRUE(at::equal(read(*store, name, {700, 1100}, {{3, 600}}, {{5, 500}, {900, 17}}),
                          slice(stored.to(at::kFloat).narrow(0, 3, 600), 1, {{5, 500}, {900, 17}})))
        << name;
  }
  store->check();
}

TEST_F(StoreTest, ReportsEveryProblemAtOnceWithNearestNames) {
  const auto store = WeightStore::open(folder_.path());
  store->adopt(rules(0));
  EXPECT_TRUE(at::equal(read(*store, "b.1.qkv.weight", {12, 7}), at::full({12, 7}, 0.0)));
  read(*store, "b.5.qkv.weight", {12, 6});
  read(*store, "tabel", {1});
  read(*store, "tabel", {1});
  const auto message = message_of(Kind::kCheckpoint, [&] { store->check(); });
  EXPECT_THAT(message, HasSubstr("2 missing, 1 of another shape"));
  EXPECT_THAT(message, HasSubstr("\"b.1.qkv.weight\" needs [12, 7], found [12, 6]"));
  EXPECT_THAT(message, HasSubstr("\"blocks.5.to_q.weight\" is missing, needs [12, 6]"));
  EXPECT_THAT(message, HasSubstr("nearest: table"));
  EXPECT_THAT(message, HasSubstr(folder_.path().string()));
}

TEST_F(StoreTest, ListsAtMostTwentyProblems) {
  const auto store = WeightStore::open(folder_.path());
  for (int i = 0; i < 30; ++i) read(*store, str("no.", i), {1});
  const auto message = message_of(Kind::kCheckpoint, [&] { store->check(); });
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 21);
  EXPECT_THAT(message, HasSubstr("and 10 more"));
}

TEST_F(StoreTest, MissingPartOfAStackIsNamed) {
  auto t = tensors_;
  t.erase("blocks.1.to_k.weight");
  write_tensors(folder_ / "model.safetensors", t);
  const auto store = WeightStore::open(folder_.path());
  store->adopt(rules(0));
  EXPECT_TRUE(store->has("b.1.qkv.weight"));
  read(*store, "b.1.qkv.weight", {12, 6});
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { store->check(); }),
              HasSubstr("lacks its part \"blocks.1.to_k.weight\""));
}

TEST_F(StoreTest, UnreadTensorsAreExtraUnlessIgnored) {
  const auto store = WeightStore::open(folder_.path());
  store->adopt(rules(0));
  for (const char* b : {"0", "1"}) {
    read(*store, str("b.", b, ".qkv.weight"), {12, 6}, {{0, 1}});
    read(*store, str("b.", b, ".qkv.bias"), {12});
  }
  EXPECT_EQ(store->unread(), (std::vector<std::string>{"byte", "table"}));
  store->check();
  const std::string_view ignorable[] = {"by*"};
  const auto message = message_of(Kind::kCheckpoint, [&] { store->check(ignorable); });
  EXPECT_THAT(message, HasSubstr("\"table\" is not part of this model"));
  EXPECT_THAT(message, Not(HasSubstr("byte")));
  const std::string_view all[] = {"by*", "table"};
  store->check(all);
}

TEST_F(StoreTest, NanAndInfinityAreNamed) {
  tensors_["blocks.0.to_q.weight"].index_put_({at::full({1}, 2, at::kLong)}, at::full({}, NAN));
  tensors_["blocks.0.to_k.weight"].fill_(1e5);  // infinite in half precision only
  write_tensors(folder_ / "model.safetensors", tensors_);
  const auto store = WeightStore::open(folder_.path());
  read(*store, "blocks.0.to_k.weight", {4, 6});
  store->check();
  read(*store, "blocks.0.to_q.weight", {4, 6}, {}, {}, at::kBFloat16);
  read(*store, "blocks.0.to_k.weight", {4, 6}, {}, {}, at::kHalf);
  const auto message = message_of(Kind::kCheckpoint, [&] { store->check(); });
  EXPECT_THAT(message, HasSubstr("\"blocks.0.to_q.weight\" holds NaN or infinity"));
  EXPECT_THAT(message, HasSubstr("\"blocks.0.to_k.weight\" holds NaN or infinity"));
}

TEST_F(StoreTest, MetaTensorsAreOnlyChecked) {
  const auto store = WeightStore::open(folder_.path());
  at::Tensor out = at::empty({2, 5, 3}, at::TensorOptions(at::kFloat).device(c10::kMeta));
  store->read_into(out, "table", {2, 5, 3}, {}, {});
  store->check();
}

std::string open_error(const std::filesystem::path& path) {
  return message_of(Kind::kCheckpoint, [&] { WeightStore::open(path); });
}

TEST(StoreOpen, NamesMissingShardsAndLyingIndices) {
  const TemporaryFolder folder;
  write_tensors(folder / "m-1.safetensors", {{"a", counting({2})}});
  const auto index = folder / "diffusion_pytorch_model.safetensors.index.json";
  const auto with_map = [&](const char* map) {
    write_file_atomically(index, str(R"({"weight_map":)", map, "}"));
    return open_error(folder.path());
  };
  EXPECT_THAT(with_map(R"({"a":"m-1.safetensors","b":"m-2.safetensors"})"),
              HasSubstr("1 of 2 shards are missing: m-2.safetensors"));
  EXPECT_THAT(with_map(R"({"a":"m-1.safetensors","b":"m-1.safetensors"})"),
              HasSubstr("\"b\" in m-1.safetensors"));
  EXPECT_THAT(with_map(R"({"a":"../m-1.safetensors"})"), HasSubstr("leaves the folder"));
  EXPECT_THAT(with_map(R"({"a":"m.bin"})"), HasSubstr("pickle"));
  EXPECT_THAT(with_map(R"({"a":3})"), HasSubstr("no file name"));
  EXPECT_THAT(with_map("[]"), HasSubstr("no weight_map"));
  EXPECT_THAT(with_map("{"), HasSubstr("JSON"));
  EXPECT_EQ(with_map(R"({"a":"m-1.safetensors"})"), "no error");
}

TEST(StoreOpen, PrefersIndexThenUsualNames) {
  const TemporaryFolder folder;
  write_tensors(folder / "model.fp16.safetensors", {{"variant", counting({2})}});
  EXPECT_TRUE(WeightStore::open(folder.path())->has("variant"));
  write_tensors(folder / "model.safetensors", {{"plain", counting({2})}});
  EXPECT_TRUE(WeightStore::open(folder.path())->has("plain"));
  EXPECT_FALSE(WeightStore::open(folder.path())->has("variant"));
  write_tensors(folder / "shard.safetensors", {{"sharded", counting({2})}});
  write_file_atomically(folder / "model.safetensors.index.json",
                        R"({"weight_map":{"sharded":"shard.safetensors"}})");
  EXPECT_TRUE(WeightStore::open(folder.path())->has("sharded"));
}

TEST(StoreOpen, SaysWhichFilesOfAFolderAreNotRead) {
  const TemporaryFolder folder;
  using Names = std::vector<std::string>;
  const auto is = [&](const Names& read, const Names& beside) {
    const auto found = files_of(folder.path());
    EXPECT_EQ(found.read, read);
    EXPECT_EQ(found.beside, beside);
  };
  const auto put = [&](const char* name) { write_tensors(folder / name, {{name, counting({2})}}); };
  put("a.gguf");
  is({"a.gguf"}, {});
  write_file_atomically(folder / "pytorch_model.bin", "x");
  is({"a.gguf"}, {"pytorch_model.bin"});
  put("b.gguf");
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { files_of(folder.path()); }), HasSubstr("a.gguf, b.gguf"));
  put("model.fp16.safetensors");
  is({"model.fp16.safetensors"}, {"a.gguf", "b.gguf", "pytorch_model.bin"});
  put("model.safetensors");
  put("model.non_ema.safetensors");
  is({"model.safetensors"},
     {"model.fp16.safetensors", "model.non_ema.safetensors", "a.gguf", "b.gguf", "pytorch_model.bin"});
  put("m-1.safetensors");
  write_file_atomically(folder / "model.safetensors.index.json",
                        R"({"weight_map":{"m-1.safetensors":"m-1.safetensors"}})");
  is({"model.safetensors.index.json"}, {"model.fp16.safetensors", "model.non_ema.safetensors",
                                        "model.safetensors", "a.gguf", "b.gguf", "pytorch_model.bin"});
}

TEST(StoreOpen, RefusesPicklesEmptyFoldersAndDuplicates) {
  const TemporaryFolder folder;
  EXPECT_THAT(open_error(folder.path()), HasSubstr("no *.safetensors"));
  EXPECT_THAT(open_error(folder / "absent"), HasSubstr("no such file or folder"));
  write_file_atomically(folder / "pytorch_model.bin", "cos\nsystem\n");
  EXPECT_THAT(open_error(folder.path()), HasSubstr("safetensors"));
  EXPECT_THAT(open_error(folder / "pytorch_model.bin"), HasSubstr("pickle"));
  write_tensors(folder / "x.safetensors", {{"a", counting({2})}});
  write_tensors(folder / "y.safetensors", {{"a", counting({2})}});
  EXPECT_THAT(open_error(folder.path()), HasSubstr("\"a\" stands in another file"));
}

}  // namespace
}  // namespace atelier::weights
