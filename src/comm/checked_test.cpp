// What all transports share: the names under which processes find each other's groups.
#include "comm/checked.h"

#include <gtest/gtest.h>

#include <set>

namespace atelier::comm {
namespace {

TEST(GroupKey, DifferentGroupsHaveDifferentTexts) {
  const std::vector<GroupKey> keys = {
      {{0, 1}, "a", 0},  {{0, 1}, "a", 1},  {{1, 0}, "a", 0},  {{0, 1, 2}, "a", 0},
      {{0, 12}, "a", 0}, {{0, 1}, "b", 0},  {{2}, "a/1", 0},   {{1, 2}, "a", 0},
      {{0, 2}, "a", 1},  {{2}, "a/1/0", 0}, {{0}, "1,2/a", 0}, {{0, 1, 2}, "", 0},
      {{0}, "a/0", 0},   {{0, 0}, "a", 0},  {{0}, "a", 10},    {{10}, "a", 0}};
  std::set<std::string> texts;
  for (const auto& key : keys) EXPECT_TRUE(texts.insert(text_of(key)).second) << text_of(key);
}

}  // namespace
}  // namespace atelier::comm
