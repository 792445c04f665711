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

TEST(Names, GlobsMatchRunsAndSingleCharacters) {
  EXPECT_TRUE(glob_matches("*.attn?.*weight", "blocks.3.attn2.to_q.weight"));
  EXPECT_TRUE(glob_matches("*", ""));
  EXPECT_FALSE(glob_matches("a*b", "acbd"));
  EXPECT_FALSE(glob_matches("", "a"));
}

TEST(Names, NearestAreClosestFirst) {
  const std::vector<std::string> known{"block.0.to_k.weight", "block.0.to_q.bias", "block.10.to_q.weight",
                                       "zzz"};
  EXPECT_EQ(nearest("block.1.to_q.weight", known, 2),
            (std::vector<std::string>{"block.10.to_q.weight", "block.0.to_k.weight"}));
  EXPECT_TRUE(nearest("completely different", std::vector<std::string>{"abc"}, 3).empty());
}

}  // namespace
}  // namespace atelier::weights
