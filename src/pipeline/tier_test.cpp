// Who may be drawn in eight bits.
#include "pipeline/tier.h"

#include <gtest/gtest.h>

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
