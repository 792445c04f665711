// Mesh against the numbers of the reference layouts and against its own definition, for every small shape.
#include "plan/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace atelier::plan {
namespace {

using Ranks = std::vector<int>;
constexpr std::array<Axis, kAxes> kAll{Axis::kData,   Axis::kCfg,     Axis::kPipeline, Axis::kRing,
                                       Axis::kGather, Axis::kUlysses, Axis::kTensor};

TEST(Mesh, GroupsOfSixteenRanksMatchTheKnownTable) {
  const std::array<int, kAxes> sizes{2, 2, 2, 1, 1, 2, 1};
  const auto group = [&](int rank, AxisSet axes) { return Mesh(sizes, rank).peers(axes); };
  EXPECT_EQ(group(0, kSequence), (Ranks{0, 1}));
  EXPECT_EQ(group(3, kSequence), (Ranks{2, 3}));
  EXPECT_EQ(group(4, {Axis::kPipeline}), (Ranks{4, 6}));
  EXPECT_EQ(group(1, {Axis::kPipeline}), (Ranks{1, 3}));
  EXPECT_EQ(group(6, {Axis::kCfg}), (Ranks{2, 6}));
  EXPECT_EQ(group(9, {Axis::kData}), (Ranks{1, 9}));
  EXPECT_EQ(group(5, {Axis::kPipeline, Axis::kUlysses}), (Ranks{4, 5, 6, 7}));
  EXPECT_EQ(group(5, {}), (Ranks{5}));
}

TEST(Mesh, SequenceRankIsRingTimesUlyssesPlusUlysses) {
  const Mesh mesh({1, 2, 1, 3, 1, 4, 1}, 12 + 2 * 4 + 3);
  EXPECT_EQ(mesh.index(Axis::kCfg), 1);
  EXPECT_EQ(mesh.index(Axis::kRing), 2);
  EXPECT_EQ(mesh.index(Axis::kUlysses), 3);
  EXPECT_EQ(mesh.sequence_rank(), 11);
  EXPECT_EQ(mesh.sequence_size(), 12);
  EXPECT_EQ(mesh.peers(kSequence)[mesh.sequence_rank()], mesh.rank());
  EXPECT_EQ(mesh.neighbour(Axis::kRing, 0), 12 + 3);
  EXPECT_EQ(mesh.neighbour(Axis::kCfg, 0), 11);
}

TEST(Mesh, RanksThatGatherLieBetweenRingAndUlysses) {
  const Mesh mesh({1, 1, 1, 2, 3, 4, 1}, 12 + 2 * 4 + 1);
  EXPECT_EQ(mesh.index(Axis::kGather), 2);
  EXPECT_EQ(mesh.sequence_rank(), mesh.rank());
  EXPECT_EQ(mesh.peers({Axis::kUlysses}), (Ranks{20, 21, 22, 23}));
  EXPECT_EQ(mesh.peers({Axis::kGather}), (Ranks{13, 17, 21}));
  EXPECT_EQ(mesh.peers({Axis::kRing}), (Ranks{9, 21}));
}

void expect_groups_partition_the_world(const std::array<int, kAxes>& sizes, unsigned bits) {
  AxisSet axes;
  for (int axis = 0; axis < kAxes; ++axis) {
    if (bits >> axis & 1) axes = axes | AxisSet{kAll[axis]};
  }
  const int world = Mesh(sizes, 0).world();
  std::set<Ranks> groups;
  for (int rank = 0; rank < world; ++rank) {
    const Mesh mesh(sizes, rank);
    ASSERT_EQ(mesh.rank_of(mesh.coordinates()), rank);
    const Ranks peers = mesh.peers(axes);
    ASSERT_EQ(static_cast<int>(peers.size()), mesh.size(axes));
    ASSERT_TRUE(std::is_sorted(peers.begin(), peers.end()));
    ASSERT_EQ(peers[mesh.index(axes)], rank);
    for (int peer : peers) {
      for (Axis axis : kAll) {
        if (!axes.contains(axis)) ASSERT_EQ(Mesh(sizes, peer).index(axis), mesh.index(axis));
      }
    }
    groups.insert(peers);
  }
  int members = 0;
  for (const Ranks& group : groups) members += static_cast<int>(group.size());
  EXPECT_EQ(members, world);
}

TEST(Mesh, GroupsPartitionTheWorldForEverySetOfAxes) {
  for (const auto& sizes :
       {std::array<int, kAxes>{2, 1, 3, 2, 1, 1, 2}, {1, 2, 2, 3, 1, 2, 1}, {3, 2, 1, 1, 3, 4, 1}}) {
    for (unsigned bits = 0; bits < 1u << kAxes; ++bits) expect_groups_partition_the_world(sizes, bits);
  }
}

TEST(Mesh, AWrongRankIsABug) {
  EXPECT_THROW(Mesh({1, 1, 2, 1, 1, 1, 1}, 2), std::logic_error);
  EXPECT_THROW(Mesh({1, 0, 2, 1, 1, 1, 1}, 0), std::logic_error);
  EXPECT_THROW(Mesh({1, 1, 2, 1, 1, 1, 1}, 0).neighbour(Axis::kPipeline, 2), std::logic_error);
}

}  // namespace
}  // namespace atelier::plan
