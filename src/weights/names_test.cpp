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

}  // namespace
}  // namespace atelier::weights
