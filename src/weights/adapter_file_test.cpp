// What files of adapters say: endings of every trainer, scales, and what is refused.
#include "weights/adapter_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "weights/adapter_for_test.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;

class AdapterFiles : public ::testing::Test {
 protected:
  AdapterLayer only(const Tensors& tensors, const FileMetadata& metadata = {}) {
    const auto file = folder_.adapter(tensors, metadata);
    EXPECT_EQ(file->layers().size(), 1u);
    return file->layers().front();
  }
  AdapterFolder folder_;
  at::Tensor down_ = numbers({2, 6}), up_ = numbers({4, 2}, 2);
};

TEST_F(AdapterFiles, EndingsOfEveryTrainerMeanTheSameFactors) {
  struct Spelling {
    const char *down, *up, *layer;
  };
  for (const auto& [down, up, layer] :
       {Spelling{"unet.a.to_q.lora_A.weight", "unet.a.to_q.lora_B.weight", "unet.a.to_q"},
        Spelling{"a.to_q.lora_A.default.weight", "a.to_q.lora_B.default.weight", "a.to_q"},
        Spelling{"lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight", "lora_unet_a"},
        Spelling{"a.q_proj.lora_linear_layer.down.weight", "a.q_proj.lora_linear_layer.up.weight",
                 "a.q_proj"},
        Spelling{"unet.a.lora.down.weight", "unet.a.lora.up.weight", "unet.a"},
        Spelling{"a.processor.to_q_lora.down.weight", "a.processor.to_q_lora.up.weight", "a.processor.to_q"},
        Spelling{"a.processor.qkv_lora1.down.weight", "a.processor.qkv_lora1.up.weight",
                 "a.processor.qkv_lora1"}}) {
    const auto read = only({{down, down_}, {up, up_}});
    EXPECT_EQ(read.name, layer);
    EXPECT_EQ(read.rows, 4);
    EXPECT_EQ(read.cols, 6);
    EXPECT_EQ(read.scale, 1);
  }
}

TEST_F(AdapterFiles, AlphaOverTheRankScales) {
  const Tensors plain{{"transformer.a.lora_A.weight", down_}, {"transformer.a.lora_B.weight", up_}};
  auto own = plain;
  own["transformer.a.alpha"] = at::full({}, 3.0F);
  EXPECT_EQ(only(own).scale, 1.5);
  const auto said = [&](const std::string& words) {
    return only(plain, {{"lora_adapter_metadata", "{\"transformer.r\": 2, " + words + "}"}}).scale;
  };
  EXPECT_EQ(said("\"transformer.lora_alpha\": 5"), 2.5);
  EXPECT_EQ(said("\"text_encoder.lora_alpha\": 5"), 1);  // of another part
  EXPECT_DOUBLE_EQ(said("\"transformer.lora_alpha\": 5, \"transformer.use_rslora\": true"),
                   5 / std::sqrt(2.0));
  EXPECT_EQ(said("\"transformer.lora_alpha\": 5, \"transformer.alpha_pattern\": {\"b\": 7, \"a\": 8}"), 4);
  EXPECT_EQ(said("\"transformer.alpha_pattern\": {\"x.*\": 7}"), 1);
}

TEST_F(AdapterFiles, AFolderOfPeftHasItsScalesBesideIt) {
  folder_.write({{"base_model.model.a.b.lora_A.weight", down_},
                 {"base_model.model.a.b.lora_B.weight", up_},
                 {"base_model.model.a.b.lora_magnitude_vector", numbers({4})}},
                {}, "adapter_model.safetensors");
  const auto write = [&](const std::string& words) {
    std::ofstream(folder_.path() / "adapter_config.json") << words;
  };
  write(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"^a.b": 6}, "use_dora": true})");
  const AdapterFile file(folder_.path());
  EXPECT_EQ(file.layers().front().scale, 3);
  EXPECT_EQ(file.layers().front().kind, AdapterLayer::Norms::kRows);
  const auto before = adapter_digest(folder_.path());
  const auto refused = [&] {
    return message_of(Kind::kCheckpoint, [&] { AdapterFile again(folder_.path()); });
  };
  write(R"({"peft_type": "LOHA"})");
  EXPECT_NE(adapter_digest(folder_.path()), before);
  EXPECT_THAT(refused(), HasSubstr("LOHA"));
  write(R"({"init_lora_weights": "pissa_niter_4"})");
  EXPECT_THAT(refused(), HasSubstr("pissa_niter_4"));
  write(R"({"fan_in_fan_out": true})");
  EXPECT_THAT(refused(), HasSubstr("fan_in_fan_out"));
  write(R"({"alpha_pattern": {"(": 1}})");
  EXPECT_THAT(refused(), HasSubstr("no regular expression"));
  // A matcher that tries every way needs years for these.
  for (const std::string hostile : {"(.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*)xyz", "((a|b|.)+)+z", "(?:.*){20}z"}) {
    write(R"({"lora_alpha": 4, "alpha_pattern": {")" + hostile + R"(": 1}})");
    EXPECT_EQ(AdapterFile(folder_.path()).layers().front().scale, 2) << hostile;
  }
  for (const std::string hostile :
       {"(?=.*(?=.*(?=.*(?=.*z))))", "(.?){9999}", "((.{9}){9}){9}", "(.*)\\\\1z"}) {
    write(R"({"alpha_pattern": {")" + hostile + R"(": 1}})");
    EXPECT_THAT(refused(), HasSubstr("alpha_pattern holds")) << hostile;
  }
  write("[");
  EXPECT_THAT(refused(), HasSubstr("no JSON object"));
}

TEST_F(AdapterFiles, ConvolutionsAreMatrices) {
  const auto layer = only({{"lora_unet_c.lora_down.weight", numbers({2, 5, 3, 3})},
                           {"lora_unet_c.lora_up.weight", numbers({4, 2, 1, 1})},
                           {"lora_unet_c.dora_scale", numbers({4, 1, 1, 1})}});
  EXPECT_EQ(layer.cols, 45);
  EXPECT_EQ(layer.kind, AdapterLayer::Norms::kRows);
}

TEST_F(AdapterFiles, NormsTellTheirAxisByTheirShape) {
  const auto kind = [&](const char* ending, at::IntArrayRef sizes, int64_t in = 6) {
    return only({{"l.lora_down.weight", numbers({2, in})},
                 {"l.lora_up.weight", up_},
                 {std::string("l") + ending, numbers(sizes)}})
        .kind;
  };
  EXPECT_EQ(kind(".dora_scale", {4, 1}), AdapterLayer::Norms::kRows);
  EXPECT_EQ(kind(".dora_scale", {1, 6}), AdapterLayer::Norms::kColumns);
  EXPECT_EQ(kind(".dora_scale", {1, 4}, 4), AdapterLayer::Norms::kColumns);
  EXPECT_EQ(kind(".lora_magnitude_vector", {1, 4}, 4), AdapterLayer::Norms::kRows);
  EXPECT_THAT(folder_.refusal(
                  {{"l.lora_down.weight", down_}, {"l.lora_up.weight", up_}, {"l.dora_scale", numbers({5})}}),
              HasSubstr("magnitudes [5]"));
}

TEST_F(AdapterFiles, WhatIsNoLoraIsRefused) {
  const Tensors good{{"l.lora_down.weight", down_}, {"l.lora_up.weight", up_}};
  const auto refused = [&](const std::string& name, const at::Tensor& value) {
    auto tensors = good;
    tensors[name] = value;
    return folder_.refusal(tensors);
  };
  EXPECT_EQ(folder_.refusal(good), "no error");
  EXPECT_THAT(folder_.refusal({{"l.lora_down.weight", down_}}), HasSubstr("only one of its two factors"));
  EXPECT_THAT(refused("l.lora_up.weight", numbers({4, 3})), HasSubstr("no factors of a matrix"));
  EXPECT_THAT(refused("m.weight", down_), HasSubstr("\"m.weight\""));
  EXPECT_THAT(refused("m.hada_w1_a", down_), HasSubstr("LoHa"));
  EXPECT_THAT(refused("m.lokr_w1", down_), HasSubstr("LoKr"));
  EXPECT_THAT(refused("m.alpha", at::full({}, 1.0F)), HasSubstr("nothing that they belong to"));
  EXPECT_THAT(refused("l.alpha", numbers({3})), HasSubstr("no single number"));
  EXPECT_THAT(refused("l.alpha", at::full({}, INFINITY)), HasSubstr("not finite"));
  EXPECT_THAT(refused("l.lora_A.weight", down_), HasSubstr("two spellings"));
  EXPECT_THAT(refused("l.lora_B.bias", numbers({3})), HasSubstr("has not 4 numbers"));
  EXPECT_THAT(folder_.refusal(good, {{"lora_adapter_metadata", "{"}}), HasSubstr("no JSON object"));
  EXPECT_THAT(folder_.refusal({}), HasSubstr("no layer"));
}

TEST_F(AdapterFiles, NumbersThatAreNoneAreNamed) {
  auto bad = up_.clone();
  bad[1][1] = NAN;
  const auto file = folder_.adapter({{"l.lora_down.weight", down_}, {"l.lora_up.weight", bad}});
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { file->check_numbers(); }),
              HasSubstr("\"l.lora_up.weight\""));
}

TEST_F(AdapterFiles, APlaceWithoutOneIsNamed) {
  const auto refused = [&](const char* name) {
    return message_of(Kind::kUsage, [&] { find_adapter(folder_.path() / name); });
  };
  EXPECT_THAT(refused("nowhere"), HasSubstr("no such file"));
  EXPECT_THAT(refused("."), HasSubstr("no .safetensors"));
  std::filesystem::create_symlink("/dev/null", folder_.path() / "device");
  EXPECT_THAT(refused("device"), HasSubstr("it is no file"));
  const auto one = folder_.write({{"l.lora_down.weight", down_}});
  EXPECT_EQ(find_adapter(folder_.path()), one);
  folder_.write({{"l.lora_down.weight", down_}}, {}, "other.safetensors");
  EXPECT_THAT(refused("."), HasSubstr("several"));
}

}  // namespace
}  // namespace atelier::weights
