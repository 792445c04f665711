// What all transports share: the names under which processes find each other's groups.
#include "comm/checked.h"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

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

TEST(FailureKind, MemoryThatIsUsedUpIsNoLostPeer) {
  const std::runtime_error memory("NCCL error: unhandled cuda error ... Cuda failure 2 'out of memory'");
  EXPECT_EQ(failure_kind(memory), Kind::kCapacity);
  EXPECT_EQ(failure_kind(std::runtime_error("connection closed by remote peer")), Kind::kPeer);
}

}  // namespace
}  // namespace atelier::comm
