#include "weights/names.h"

#include <gtest/gtest.h>

namespace atelier::weights {
namespace {

TEST(Names, MatchIndicesAndSuffix) {
  const auto found = match("a.{}.b.{}", "a.12.b.3.weight");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->indices, (std::vector<std::string>{"12", "3"}));
  EXPECT_EQ(found->suffix, ".weight");
  EXPECT_EQ(fill("x.{}.y.{}", *found), "x.12.y.3.weight");
}

TEST(Names, MatchOnlyWholeComponents) {
  EXPECT_FALSE(match("a.to_q", "a.to_qkv.weight"));
  EXPECT_FALSE(match("a.1", "a.12.weight"));
  EXPECT_FALSE(match("a.{}", "a.b.weight"));
  EXPECT_FALSE(match("a.b", "a"));
  EXPECT_TRUE(match("a.b.weight", "a.b.weight"));
}

TEST(Names, LoseWhatTrainingWrapsAround) {
  EXPECT_EQ(unwrapped("_orig_mod.blocks.0.attn.to_q.weight"), "blocks.0.attn.to_q.weight");
  EXPECT_EQ(unwrapped("blocks.0._orig_mod.attn.to_q.weight"), "blocks.0.attn.to_q.weight");
  EXPECT_EQ(unwrapped("module.net.module._orig_mod.a.weight"), "net.a.weight");
  EXPECT_EQ(unwrapped("_fsdp_wrapped_module.blocks.1._checkpoint_wrapped_module.a.bias"), "blocks.1.a.bias");
  EXPECT_EQ(unwrapped("_forward_module._forward_module.a"), "a");
  for (const char* own : {"a.weight", "modules.0.a", "my_orig_mod.a", "a.module", "..a.", "module", ""})
    EXPECT_EQ(unwrapped(own), own);
  EXPECT_EQ(unwrapped_flat("lora_unet__orig_mod_blocks_0__orig_mod_attn_to_q"),
            "lora_unet_blocks_0_attn_to_q");
  EXPECT_EQ(unwrapped_flat("lora_unet_module_blocks_0_to_q"), "lora_unet_module_blocks_0_to_q");
}

}  // namespace
}  // namespace atelier::weights
