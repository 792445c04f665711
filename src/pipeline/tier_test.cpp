// Who may be drawn in eight bits.
#include "pipeline/tier.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/testing.h"
#include "pipeline/engine_config.h"

namespace atelier::pipeline {
namespace {

TEST(Precision, EveryTypeHasItsBytes) {
  EXPECT_EQ(bytes_of_type("float64"), 8);
  EXPECT_EQ(bytes_of_type("float32"), 4);
  for (const char* half : {"bfloat16", "float16"}) EXPECT_EQ(bytes_of_type(half), 2);
}

TEST(Tier, OfTransformersOnAnyCpu) {
  EXPECT_NO_THROW(check_tier(nn::Tier::kFast, {.name = "a transformer"}, c10::kCPU));
  const ModelFacts unet{.name = "a UNet", .has_convolution_mixer = true};
  EXPECT_NO_THROW(check_tier(nn::Tier::kExact, unet, c10::kCPU));
  const auto message = message_of(Kind::kUsage, [&] { check_tier(nn::Tier::kFastStrict, unet, c10::kCPU); });
  for (const char* part : {"fast-strict", "a UNet", "--tier exact"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(Attention, OfAnotherKindOfGpuIsRefusedByName) {
  EXPECT_NO_THROW(check_attention(nn::SdpaBackend::kAuto, at::kFloat, c10::kCPU));
  const auto message =
      message_of(Kind::kUsage, [] { check_attention(nn::SdpaBackend::kFlash3, at::kBFloat16, c10::kCPU); });
  for (const char* part : {"flash3", "FlashAttention 3", "GPU", "sdpa"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(AttentionDtype, IsRefusedByNameWhereItCannotBe) {
  using enum nn::SdpaBackend;
  constexpr auto kE4m3 = nn::AttentionDtype::kFp8E4m3;
  EXPECT_NO_THROW(check_attention_dtype(kE4m3, kAuto, at::kFloat, c10::kCPU));
  EXPECT_NO_THROW(check_attention_dtype(nn::AttentionDtype::kAuto, kCudnn, at::kHalf, c10::kCUDA));
  const auto message = [](nn::SdpaBackend kernel, at::ScalarType type) {
    return message_of(Kind::kUsage, [&] { check_attention_dtype(kE4m3, kernel, type, c10::kCUDA); });
  };
  const auto expect_parts = [](const std::string& text, std::initializer_list<const char*> parts) {
    for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect_parts(message(kCudnn, at::kBFloat16), {"fp8_e4m3", "flash3", "--attention_dtype auto"});
  expect_parts(message(kAuto, at::kHalf), {"bfloat16", "Half", "--attention_dtype auto"});
  expect_parts(message(kFlash3, at::kFloat), {"bfloat16", "Float"});
  EXPECT_NO_THROW(check_attentions({.e4m3 = 1, .dense = 3}, "FLUX"));
  expect_parts(message_of(Kind::kUsage, [] { check_attentions({.e4m3 = 0, .dense = 3}, "a toy"); }),
               {"fp8_e4m3", "a toy", "--attention_dtype auto"});
  EXPECT_NO_THROW(check_attention_heads(kE4m3, "FLUX", 128));
  EXPECT_NO_THROW(check_attention_heads(nn::AttentionDtype::kAuto, "PixArt", 72));
  expect_parts(message_of(Kind::kUsage, [] { check_attention_heads(kE4m3, "PixArt", 72); }),
               {"fp8_e4m3", "PixArt", "72", "--attention_dtype auto"});
}

TEST(AttentionDtype, IsNamedAndTravels) {
  EXPECT_EQ(attention_dtype_named("fp8_e4m3"), nn::AttentionDtype::kFp8E4m3);
  EXPECT_NE(message_of(Kind::kUsage, [] { attention_dtype_named("fp4"); }).find("auto, fp8_e4m3"),
            std::string::npos);
  EngineConfig config;
  config.attention_dtype = "fp8_e4m3";
  const auto back = engine_config_from_json(to_json(config));
  EXPECT_EQ(back.attention_dtype, "fp8_e4m3");
  EXPECT_EQ(load_options(back, c10::kCPU).attention_dtype, nn::AttentionDtype::kFp8E4m3);
}

TEST(Tier, IsNamedAndTravels) {
  EXPECT_EQ(tier_named("fast-strict"), nn::Tier::kFastStrict);
  EXPECT_NE(message_of(Kind::kUsage, [] { tier_named("quick"); }).find("exact, fast, fast-strict"),
            std::string::npos);
  EngineConfig config;
  config.tier = "fast";
  const auto back = engine_config_from_json(to_json(config));
  EXPECT_EQ(back.tier, "fast");
  EXPECT_EQ(load_options(back, c10::kCPU).tier, nn::Tier::kFast);
}

}  // namespace
}  // namespace atelier::pipeline
