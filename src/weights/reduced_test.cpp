#include "weights/reduced.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/testing.h"
#include "weights/store.h"
#include "weights/tensors.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;

at::Tensor bytes(std::string_view text) {
  at::Tensor out = at::zeros({static_cast<int64_t>(text.size())}, at::TensorOptions(at::kByte));
  std::memcpy(out.data_ptr(), text.data(), text.size());
  return out;
}

class ReducedTest : public ::testing::Test {
 protected:
  std::unique_ptr<WeightStore> open(const Tensors& tensors, const FileMetadata& metadata = {}) const {
    write_tensors(folder_ / "a.safetensors", tensors, metadata);
    return WeightStore::open(folder_ / "a.safetensors");
  }
  at::Tensor read(const Tensors& tensors, const FileMetadata& metadata = {}) const {
    const auto store = open(tensors, metadata);
    EXPECT_EQ(store->names(), std::vector<std::string>{"net.a.weight"});
    at::Tensor out = at::full({6, 8}, 9, at::kFloat);
    store->read_into(out, "net.a.weight", {6, 8}, {}, {});
    store->check({});
    return out;
  }
  std::string refusal(const Tensors& tensors, const FileMetadata& metadata = {}) const {
    return message_of(Kind::kCheckpoint, [&] { open(tensors, metadata); });
  }
  TemporaryFolder folder_;
  at::Tensor eight_ = at::randn({6, 8}).to(at::kFloat8_e4m3fn);
  at::Tensor scale_ = at::full({}, 0.0371, at::kFloat);
};

TEST_F(ReducedTest, EverySpellingOfAScaleCounts) {
  const auto want = eight_.to(at::kFloat) * scale_;
  const auto marker = at::zeros({0}, at::TensorOptions(at::kFloat8_e4m3fn));
  EXPECT_TRUE(at::equal(want, read({{"net.a.weight", eight_},
                                    {"net.a.scale_weight", scale_},
                                    {"net.a.scale_input", at::ones({})},
                                    {"net.scaled_fp8", marker}})));
  EXPECT_TRUE(at::equal(want, read({{"net.a.weight", eight_},
                                    {"net.a.weight_scale", scale_.view({1})},
                                    {"net.a.input_scale", at::ones({})},
                                    {"net.a.comfy_quant", bytes(R"({"format": "float8_e4m3fn"})")}})));
  EXPECT_TRUE(at::equal(
      want, read({{"net.a.weight", eight_}, {"net.a.weight_scale", scale_}},
                 {{"_quantization_metadata",
                   R"({"format_version": "1.0", "layers": {"net.a": {"format": "float8_e4m3fn"}}})"}})));
  const auto rows = at::rand({6, 1});
  EXPECT_TRUE(at::equal(eight_.to(at::kFloat) * rows,
                        read({{"net.a.weight", eight_}, {"net.a.weight_scale", rows}})));
}

TEST_F(ReducedTest, ScaledFloatsNeedTheirScales) {
  const auto marker = at::zeros({}, at::TensorOptions(at::kFloat8_e4m3fn));
  const Tensors plain{{"b.0.a.weight", eight_}, {"b.1.a.weight", eight_}, {"table.weight", eight_}};
  const auto with = [&](Tensors others) {
    others.insert(plain.begin(), plain.end());
    return others;
  };
  EXPECT_EQ(refusal(plain), "no error");
  EXPECT_THAT(refusal(with({{"scaled_fp8", marker}})), HasSubstr("\"b.0.a.weight\" need a scale"));
  EXPECT_THAT(refusal(with({{"b.1.a.comfy_quant", bytes(R"({"format": "float8_e4m3fn"})")}})),
              HasSubstr("\"b.1.a.weight\" need a scale"));
  EXPECT_THAT(
      refusal(plain, {{"_quantization_metadata", R"({"layers": {"b.1.a": {"format": "float8_e4m3fn"}}})"}}),
      HasSubstr("\"b.1.a.weight\" need a scale"));
  EXPECT_THAT(refusal(with({{"b.0.a.weight_scale", scale_}})), HasSubstr("\"b.1.a.weight\" need a scale"));
  EXPECT_EQ(
      refusal(with({{"b.0.a.scale_weight", scale_}, {"b.1.a.scale_weight", scale_}, {"scaled_fp8", marker}})),
      "no error");  // a table of its own kind is not one of them
}

TEST_F(ReducedTest, SlicesAreScaledByTheirOwnRows) {
  const auto rows = at::rand({6});
  const auto store = open(
      {{"a.weight", eight_}, {"a.weight_scale", rows}, {"b.weight", eight_}, {"b.weight_scale", scale_}});
  store->adopt(std::vector<NameRule>{{"ab", {{"a"}, {"b"}}}, {"side", {{"a"}, {"b"}}, 1}});
  const auto a = eight_.to(at::kFloat) * rows.view({6, 1}), b = eight_.to(at::kFloat) * scale_;
  at::Tensor out = at::full({4, 3}, 9, at::kFloat);
  const Range of_rows[] = {{4, 4}}, cols[] = {{5, 3}};
  store->read_into(out, "ab.weight", {12, 8}, of_rows, cols);
  EXPECT_TRUE(at::equal(out, at::cat({a, b}).narrow(0, 4, 4).narrow(1, 5, 3)));
  const Range across[] = {{5, 6}}, two[] = {{2, 2}};
  at::Tensor side = at::full({2, 6}, 9, at::kBFloat16);
  store->read_into(side, "side.weight", {6, 16}, two, across);
  EXPECT_TRUE(at::equal(side, at::cat({a, b}, 1).narrow(0, 2, 2).narrow(1, 5, 6).to(at::kBFloat16)));
}

TEST_F(ReducedTest, FormatsThatAreNotReadAreNamed) {
  const auto byte = at::zeros({6, 8}, at::TensorOptions(at::kByte));
  const auto w = [&](const at::Tensor& weight, Tensors others) {
    others["a.weight"] = weight;
    return refusal(others);
  };
  EXPECT_THAT(w(byte, {{"a.weight.absmax", scale_}, {"a.weight.quant_state.bitsandbytes__nf4", byte}}),
              HasSubstr("NF4"));
  EXPECT_THAT(w(byte, {{"a.weight.absmax", scale_}}), HasSubstr("4-bit"));
  EXPECT_THAT(w(byte, {{"a.SCB", scale_}}), HasSubstr("LLM.int8"));
  EXPECT_THAT(w(byte, {{"a.weight_scale", eight_}, {"a.weight_scale_2", scale_}}), HasSubstr("nvfp4"));
  EXPECT_THAT(w(eight_, {{"a.weight_scale", at::zeros({6, 1}, at::TensorOptions(at::kByte))}}),
              HasSubstr("mxfp8"));
  EXPECT_THAT(w(eight_, {{"a.comfy_quant", bytes(R"({"format": "mxfp8"})")}}), HasSubstr("mxfp8"));
  EXPECT_THAT(w(eight_, {{"a.weight_scale", at::ones({2, 2})}}), HasSubstr("blocks"));
  EXPECT_THAT(w(eight_, {{"a.weight_scale_inv", at::ones({1, 1})}}), HasSubstr("per block"));
  EXPECT_THAT(w(byte.to(at::kChar), {{"a.weight_scale", scale_}}), HasSubstr("int8"));
  EXPECT_THAT(w(byte, {}), HasSubstr("integers (U8)"));
  EXPECT_THAT(w(eight_, {{"b.qweight", byte}, {"b.qzeros", byte}}), HasSubstr("GPTQ"));
  EXPECT_THAT(refusal({{"a.weight", eight_}},
                      {{"_quantization_metadata", R"({"layers": {"a": {"format": "int8_tensorwise"}}})"}}),
              HasSubstr("int8_tensorwise"));
}

TEST_F(ReducedTest, WhatTrainingLeavesUnfinishedIsNamed) {
  const auto a = at::zeros({6, 8});
  EXPECT_THAT(refusal({{"_fsdp_wrapped_module._flat_param", scale_}}), HasSubstr("FSDP flattened"));
  EXPECT_THAT(refusal({{"blocks.0._fsdp_wrapped_module.flat_param_0", scale_}}), HasSubstr("FSDP flattened"));
  EXPECT_THAT(refusal({{"a.parametrizations.weight.original0", a}}), HasSubstr("parametrizations of torch"));
  EXPECT_THAT(refusal({{"a.base_layer.weight", a}, {"a.lora_A.default.weight", a}}),
              HasSubstr("not merged into it"));
  EXPECT_THAT(refusal({{"a.modules_to_save.default.weight", a}}), HasSubstr("merge_and_unload"));
}

// A scale, a mark and a header's list of layers that training wrapped stand beside their weights.
TEST_F(ReducedTest, MarksMayBeWrappedAsTheirWeightsAre) {
  const auto want = eight_.to(at::kFloat) * scale_;
  EXPECT_TRUE(at::equal(
      want,
      read({{"net._orig_mod.a.weight", eight_}, {"net._orig_mod.a.weight_scale", scale_}},
           {{"_quantization_metadata", R"({"layers": {"net._orig_mod.a": {"format": "float8_e4m3fn"}}})"}})));
  EXPECT_TRUE(at::equal(want, read({{"module.net.a.weight", eight_}, {"net.a.scale_weight", scale_}})));
}

TEST_F(ReducedTest, AChangeToAModelIsNoModel) {
  EXPECT_THAT(refusal({{"transformer.a.lora_A.weight", scale_}}), HasSubstr("a LoRA"));
  EXPECT_THAT(refusal({{"lora_unet_a.lora_down.weight", scale_}}),
              HasSubstr("name the model that it was made for"));
  EXPECT_THAT(refusal({{"lora_unet_a.lokr_w1", scale_}}), HasSubstr("LoKr"));
}

TEST_F(ReducedTest, BrokenMarksAreNamed) {
  EXPECT_THAT(refusal({{"a.weight", eight_}, {"a.comfy_quant", bytes("{\"format\":")}}),
              HasSubstr("a.comfy_quant"));
  EXPECT_THAT(refusal({{"a.weight", eight_}, {"a.comfy_quant", scale_}}), HasSubstr("text of bytes"));
  EXPECT_THAT(refusal({{"a.weight", eight_}, {"a.scale_weight", scale_}, {"a.weight_scale", scale_}}),
              HasSubstr("two scales"));
  EXPECT_THAT(refusal({{"a.weight", eight_}}, {{"_quantization_metadata", "[[["}}),
              HasSubstr("not valid JSON"));
  EXPECT_EQ(refusal({{"a.weight", eight_}}, {{"_quantization_metadata", "3"}}), "no error");
}

// testdata/reduced is made by the writers themselves (tests/goldens/reduced_files.py).
const std::filesystem::path kWritten = "src/weights/testdata/reduced";

TEST(RealFiles, OfComfyAreReadAsItReadsThem) {
  const Tensors values = read_tensors(kWritten / "values.safetensors");
  for (const std::string name : {"comfy_e4m3", "comfy_e5m2", "comfy_mixed"}) {
    const auto store = WeightStore::open(kWritten / (name + ".safetensors"));
    EXPECT_EQ(store->names(), (std::vector<std::string>{"net.a.bias", "net.a.weight"})) << name;
    for (const std::string part : {"weight", "bias"}) {
      const at::Tensor& want = values.at(str(name, ".", part));
      at::Tensor got = at::full(want.sizes(), 9, at::kFloat);
      store->read_into(got, str("net.a.", part), want.sizes(), {}, {});
      EXPECT_LE((got - want).abs().max().item<double>(), 1e-6 * want.abs().max().item<double>())
          << name << part;
    }
    store->check({});
  }
}

TEST(RealFiles, OfBitsandbytesAreNamed) {
  const std::pair<const char*, const char*> files[] = {{"nf4", "(NF4)"},
                                                       {"nf4_nested", "(NF4)"},
                                                       {"fp4", "(FP4)"},
                                                       {"fp4_nested", "(FP4)"},
                                                       {"int8", "(LLM.int8)"}};
  for (const auto& [name, word] : files) {
    const auto file = kWritten / str("bitsandbytes_", name, ".safetensors");
    const auto message = message_of(Kind::kCheckpoint, [&] { WeightStore::open(file); });
    EXPECT_THAT(message, HasSubstr(file.string())) << name;
    EXPECT_THAT(message, HasSubstr(str("of bitsandbytes ", word))) << name;
  }
}

}  // namespace
}  // namespace atelier::weights
