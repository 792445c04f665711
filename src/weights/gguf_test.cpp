#include "weights/gguf.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/testing.h"
#include "weights/decode.h"
#include "weights/gguf_for_test.h"
#include "weights/store.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;

// One block of each type: byte i is (37 i + 11) mod 256, but the halves at `halves` are 0.75 and -0.375. The
// numbers are those of gguf.quants.dequantize (gguf 0.19).
struct BlockCase {
  DType dtype;
  std::vector<size_t> halves, at;
  std::vector<float> values;
  double sum;
};
const BlockCase kBlocks[] = {
    {DType::kQ4_0, {0}, {0, 1, 15, 16, 31}, {-2.25, 1.5, -6.0, -2.25, 0.0}, -15.75},
    {DType::kQ5_0, {0}, {0, 1, 15, 16, 31}, {6.75, -1.5, -9.0, 10.5, 0.75}, 11.25},
    {DType::kQ8_0, {0}, {0, 1, 15, 16, 31}, {63.75, 91.5, -96.0, -68.25, -36.0}, -132.0},
    {DType::kQ4_1, {0, 2}, {0, 1, 15, 16, 31}, {10.875, 2.625, 7.125, 6.375, 8.625}, 171.75},
    {DType::kQ5_1, {0, 2}, {0, 1, 15, 16, 31}, {13.875, 17.625, 22.125, 13.875, 3.375}, 366.75},
    {DType::kQ4_K,
     {0, 2},
     {0, 1, 15, 16, 31, 32, 63, 100, 128, 200, 255},
     {274.875, 19.125, 158.625, 274.875, 158.625, 24.0, 48.0, 96.75, 326.25, 116.625, 62.625},
     47166.0},
    {DType::kQ5_K,
     {0, 2},
     {0, 1, 15, 16, 31, 32, 63, 100, 128, 200, 255},
     {646.875, 19.125, 158.625, 646.875, 158.625, 102.0, 78.0, 201.75, 794.25, 116.625, 107.625},
     93498.0},
    {DType::kQ6_K,
     {208},
     {0, 1, 15, 16, 31, 32, 63, 100, 128, 200, 255},
     {-1073.25, 1272.0, -238.5, -324.0, -72.0, 173.25, -435.0, 1892.25, -263.25, 816.75, -45.0},
     3459.0}};

std::string block_bytes(const BlockCase& c, int64_t blocks = 1) {
  std::string one(static_cast<size_t>(block_of(c.dtype).bytes), '\0');
  for (size_t i = 0; i < one.size(); ++i) one[i] = static_cast<char>(37 * i + 11);
  constexpr uint16_t kHalves[] = {0x3a00, 0xb600};
  for (size_t i = 0; i < c.halves.size(); ++i) std::memcpy(one.data() + c.halves[i], &kHalves[i], 2);
  std::string all;
  for (int64_t i = 0; i < blocks; ++i) all += one;
  return all;
}

uint32_t ggml_type(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ5_0:
      return 6;
    case DType::kQ5_1:
      return 7;
    case DType::kQ8_0:
      return 8;
    case DType::kQ4_K:
      return 12;
    case DType::kQ5_K:
      return 13;
    default:
      return 14;
  }
}

TEST(Decode, GivesTheNumbersOfTheReference) {
  for (const auto& c : kBlocks) {
    std::vector<float> got(static_cast<size_t>(block_of(c.dtype).elements));
    const auto bytes = block_bytes(c);
    decode(c.dtype, reinterpret_cast<const std::byte*>(bytes.data()), 1, got.data());
    for (size_t i = 0; i < c.at.size(); ++i)
      EXPECT_EQ(got[c.at[i]], c.values[i]) << name_of(c.dtype) << " " << c.at[i];
    double sum = 0;
    for (const float value : got) sum += value;
    EXPECT_EQ(sum, c.sum) << name_of(c.dtype);
  }
}

TEST(Decode, KnowsEveryHalfAndEightBitFloat) {
  for (const auto& [dtype, torch] : {std::pair(DType::kF8E4M3, at::kFloat8_e4m3fn),
                                     {DType::kF8E5M2, at::kFloat8_e5m2},
                                     {DType::kF16, at::kHalf},
                                     {DType::kBF16, at::kBFloat16}}) {
    const int64_t count = size_of(dtype) == 1 ? 256 : 65536;
    at::Tensor all = at::full({count}, 0, at::TensorOptions(torch));
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(static_cast<char*>(all.data_ptr()) + i * size_of(dtype), &i,
                  static_cast<size_t>(size_of(dtype)));
    at::Tensor got = at::full({count}, 7, at::kFloat);
    decode(dtype, static_cast<const std::byte*>(all.data_ptr()), count, got.data_ptr<float>());
    EXPECT_TRUE(at::equal(got.nan_to_num(3e38), all.to(at::kFloat).nan_to_num(3e38))) << name_of(dtype);
  }
}

class GgufTest : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes, const std::string& name = "a.gguf") const {
    write_file_atomically(folder_ / name, bytes);
    return folder_ / name;
  }
  std::string error(const GgufBytes& file) const { return error(file.bytes()); }
  std::string error(const std::string& bytes) const {
    return message_of(Kind::kCheckpoint, [&] { TensorFile::open(write(bytes)); });
  }
  TemporaryFolder folder_;
};

GgufBytes::Tensor small(const std::string& name, std::vector<uint64_t> dims = {2, 3}) {
  uint64_t n = 4;
  for (const auto d : dims) n *= d;
  return {name, std::move(dims), 0, std::string(n, '\1')};
}

TEST_F(GgufTest, ShapesTurnRoundAndValuesOfEveryKindArePassedOver) {
  GgufBytes file;
  file.pair("general.name", 8, GgufBytes::text("A name"));
  file.pair("a.list", 9,
            GgufBytes::number(8, 4) + GgufBytes::number(2, 8) + GgufBytes::text("x") + GgufBytes::text(""));
  file.pair("a.nested", 9,
            GgufBytes::number(9, 4) + GgufBytes::number(1, 8) + GgufBytes::number(0, 4) +
                GgufBytes::number(3, 8) + "abc");
  file.pair("a.bool", 7, GgufBytes::number(1, 1));
  file.pair("a.double", 12, GgufBytes::number(0, 8));
  file.add(small("t", {4, 3, 2}));
  file.add(small("scalar", {}));
  const auto opened = TensorFile::open(write(file.bytes()));
  EXPECT_EQ(opened.metadata().at("general.name"), "A name");
  EXPECT_EQ(opened.metadata().at("a.bool"), "1");
  EXPECT_EQ(opened.entries().at("t").shape, (std::vector<int64_t>{2, 3, 4}));
  EXPECT_TRUE(opened.entries().at("scalar").shape.empty());
  EXPECT_EQ(opened.entries().at("scalar").bytes, 4);
}

TEST_F(GgufTest, SlicesOfBlocksAreTheSlicesOfTheWhole) {
  for (const auto& c : kBlocks) {
    const auto per_row = static_cast<uint64_t>(2 * block_of(c.dtype).elements);
    GgufBytes file;
    file.add({"w.weight", {per_row, 6}, ggml_type(c.dtype), block_bytes(c, 12)});
    const auto store = WeightStore::open(write(file.bytes()));
    store->adopt(std::vector<NameRule>{{"two.weight", {{"w.weight", {4, 2}}, {"w.weight", {0, 4}}}}});
    const auto wide = static_cast<int64_t>(per_row);
    at::Tensor whole = at::full({6, wide}, 9, at::kFloat), part = at::full({3, wide - 30}, 9, at::kFloat);
    store->read_into(whole, "w.weight", whole.sizes(), {}, {});
    EXPECT_EQ(whole[5][wide - 1].item<float>(), c.values.back());
    const Range rows[] = {{1, 2}, {4, 1}}, cols[] = {{3, 10}, {33, wide - 40}};
    store->read_into(part, "two.weight", whole.sizes(), rows, cols);
    const auto turned = at::cat({whole.narrow(0, 4, 2), whole.narrow(0, 0, 4)});
    const auto picked = at::cat({turned.narrow(0, 1, 2), turned.narrow(0, 4, 1)});
    EXPECT_TRUE(at::equal(part, at::cat({picked.narrow(1, 3, 10), picked.narrow(1, 33, wide - 40)}, 1)))
        << name_of(c.dtype);
    store->check();
  }
}

TEST_F(GgufTest, TheShapeThatTheWriterFlattenedComesBack) {
  GgufBytes file;
  file.shape("conv.weight", {4, 2, 1, 4, 8});
  file.add({"conv.weight", {32, 8}, 2, block_bytes(kBlocks[0], 8)});
  EXPECT_EQ(TensorFile::open(write(file.bytes())).entries().at("conv.weight").shape,
            (std::vector<int64_t>{4, 2, 1, 4, 8}));
  GgufBytes wrong;
  wrong.shape("conv.weight", {4, 2, 1, 4, -8});
  wrong.add({"conv.weight", {32, 8}, 2, block_bytes(kBlocks[0], 8)});
  EXPECT_THAT(error(wrong), HasSubstr("cannot have the shape [4, 2, 1, 4, -8]"));
}

TEST_F(GgufTest, TypesThatAreNotReadAreNamed) {
  GgufBytes file;
  file.add({"w", {256, 2}, 10, std::string(168, 'x')});
  EXPECT_THAT(error(file), HasSubstr("stored as Q2_K"));
  EXPECT_THAT(error(file), HasSubstr("Q4_K"));
  GgufBytes unknown;
  unknown.add({"w", {256, 2}, 99, std::string(168, 'x')});
  EXPECT_THAT(error(unknown), HasSubstr("has type 99"));
}

TEST_F(GgufTest, LiesAreFound) {
  GgufBytes file;
  file.version = 1;
  EXPECT_THAT(error(file), HasSubstr("version 1"));
  file.version = 3 << 24;
  EXPECT_THAT(error(file), HasSubstr("big-endian"));
  GgufBytes far;
  far.add(small("t"));
  const std::string whole = far.bytes();
  for (size_t n = 4; n < whole.size() - 20; ++n)
    EXPECT_THAT(error(whole.substr(0, n)), HasSubstr("truncated")) << n;
  auto many = whole;
  std::memset(many.data() + 8, 0xff, 8);
  EXPECT_THAT(error(many), HasSubstr("tensors and"));
  GgufBytes moved;
  moved.add(small("t"));
  moved.add({"u", {2, 3}, 0, std::string(24, 'x'), -32});
  EXPECT_THAT(error(moved), HasSubstr("share bytes"));
  GgufBytes twice;
  twice.add(small("t"));
  twice.add(small("t"));
  EXPECT_THAT(error(twice), HasSubstr("twice"));
  GgufBytes ragged;
  ragged.add({"t", {33, 32}, 2, std::string(18 * 33, 'x')});
  EXPECT_THAT(error(ragged), HasSubstr("blocks of 32"));
  GgufBytes odd;
  odd.pair("general.alignment", 4, GgufBytes::number(12, 4));
  EXPECT_THAT(error(odd), HasSubstr("power of two"));
  GgufBytes list;
  list.pair("l", 9, GgufBytes::number(4, 4) + GgufBytes::number(uint64_t{1} << 62, 8));
  EXPECT_THAT(error(list), HasSubstr("truncated"));
  GgufBytes split;
  split.pair("split.count", 2, GgufBytes::number(3, 2));
  EXPECT_THAT(error(split), HasSubstr("one of 3 parts"));
}

TEST_F(GgufTest, AFolderMayHoldOne) {
  GgufBytes file;
  file.add(small("t"));
  write(file.bytes());
  EXPECT_TRUE(WeightStore::open(folder_.path())->has("t"));
  write(file.bytes(), "b.gguf");
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { WeightStore::open(folder_.path()); }),
              HasSubstr("2 GGUF files"));
}

}  // namespace
}  // namespace atelier::weights
