// Which file system a folder is on, from tables that look like the kernel's.
#include "machine/disk.h"

#include <gtest/gtest.h>

#include "base/scratch.h"

namespace atelier::machine {
namespace {

TEST(Disk, TheDeepestMountThatHoldsAFolderIsItsFileSystem) {
  const Scratch scratch;
  const auto folder = scratch / "out put" / "pictures";
  std::filesystem::create_directories(folder);
  const std::string base = std::filesystem::canonical(scratch.path()).string();
  const auto mounts =
      scratch.write("mounts", "rootfs / overlay rw 0 0\nserver:/x " + base +
                                  "/out\\040put nfs4 rw 0 0\n/dev/a " + base + "/out ext4 rw 0 0\n");
  const auto found = file_system_of(folder, mounts);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->type, "nfs4");
  EXPECT_TRUE(found->is_network);
  EXPECT_GT(found->size, 0);
  // What does not exist yet is on its parent's.
  EXPECT_EQ(file_system_of(folder / "not" / "yet", mounts)->type, "nfs4");
  // "out" is no part of "out put".
  const auto root = file_system_of(scratch.path(), mounts);
  EXPECT_EQ(root->type, "overlay");
  EXPECT_FALSE(root->is_network);
  EXPECT_FALSE(file_system_of(folder, scratch / "no table"));
}

TEST(Disk, TheLaterOfTwoMountsOnOneFolderCounts) {
  const Scratch scratch;
  const auto mounts = scratch.write("mounts", "a / ext4 rw 0 0\nb / xfs rw 0 0\n");
  EXPECT_EQ(file_system_of("/", mounts)->type, "xfs");
}

TEST(Disk, WritingLeavesNothingBehind) {
  const Scratch scratch;
  const auto rate = write_rate(scratch.path(), 1 << 20);
  ASSERT_TRUE(rate);
  EXPECT_GT(*rate, 0);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
  EXPECT_FALSE(write_rate(scratch / "nowhere", 1));
}

}  // namespace
}  // namespace atelier::machine
