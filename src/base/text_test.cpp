#include "base/text.h"

#include <gtest/gtest.h>

#include "base/constant_time.h"

namespace atelier {
namespace {

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

TEST(ConstantTime, ComparesEveryByte) {
  const std::string zeros("\0\0a", 3);
  EXPECT_TRUE(is_equal_in_constant_time("", ""));
  EXPECT_TRUE(is_equal_in_constant_time(zeros, zeros));
  EXPECT_FALSE(is_equal_in_constant_time(zeros, "a"));
  for (const char* other : {"xbc", "axc", "abx", "ab\xE3", "ab", "abcd"})
    EXPECT_FALSE(is_equal_in_constant_time("abc", other)) << other;
}

}  // namespace
}  // namespace atelier
