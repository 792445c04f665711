// Atomic writes: links, full disks, read-only and vanished folders, leftovers of dead processes.
#include "jobs/output_folder.h"

#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "base/files.h"
#include "base/scratch.h"

namespace atelier::jobs {
namespace {
namespace fs = std::filesystem;

int64_t count_files(const fs::path& folder) {
  int64_t n = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) n += !entry.is_directory();
  return n;
}

TEST(OutputFolder, WritesAndReplacesWholeFiles) {
  const Scratch dir;
  OutputFolder out(dir / "new/folder");
  out.write("a.png", "one");
  out.write("deep/er/b.png", "two");
  out.write("a.png", "three");
  EXPECT_EQ(read_file(dir / "new/folder/a.png"), "three");
  EXPECT_EQ(read_file(dir / "new/folder/deep/er/b.png"), "two");
  EXPECT_EQ(count_files(dir.path()), 2);
}

TEST(OutputFolder, LinksDoNotLeadOutside) {
  const Scratch dir;
  fs::create_directories(dir / "outside");
  dir.write("outside/kept.txt", "kept");
  OutputFolder out(dir / "out");
  fs::create_directory_symlink(dir / "outside", dir / "out/link");
  EXPECT_NE(message_of(Kind::kItem, [&] { out.write("link/x.png", "!"); }).find("symbolic link"),
            std::string::npos);
  message_of(Kind::kItem, [&] { out.write("link/sub/x.png", "!"); });
  message_of(Kind::kItem, [&] { out.write("../x.png", "!"); });
  fs::create_symlink(dir / "outside/kept.txt", dir / "out/y.png");
  out.write("y.png", "new");
  EXPECT_EQ(read_file(dir / "outside/kept.txt"), "kept");
  EXPECT_EQ(read_file(dir / "out/y.png"), "new");
  EXPECT_EQ(count_files(dir / "outside"), 1);
}

TEST(OutputFolder, AFileWhereAFolderIsNeededFailsTheItem) {
  const Scratch dir;
  OutputFolder out(dir.path());
  out.write("a.png", "x");
  message_of(Kind::kItem, [&] { out.write("a.png/b.png", "x"); });
  fs::create_directory(dir / "c.png");
  message_of(Kind::kItem, [&] { out.write("c.png", "x"); });
  EXPECT_EQ(count_files(dir.path()), 1);
}

TEST(OutputFolder, UnusableFoldersAreNamedBeforeAnythingIsDrawn) {
  const Scratch dir;
  dir.write("file", "");
  EXPECT_NE(message_of(Kind::kUsage, [&] { OutputFolder out(dir / "file"); }).find("file"),
            std::string::npos);
  message_of(Kind::kUsage, [&] { OutputFolder out(dir / "file/below"); });
  message_of(Kind::kUsage, [&] { OutputFolder out("/proc/atelier"); });
  EXPECT_NE(message_of(Kind::kUsage, [&] { OutputFolder out(""); }).find("empty name"), std::string::npos);
  message_of(Kind::kUsage, [&] { OutputFolder out("/proc"); });
}

TEST(OutputFolder, ReadOnlyFoldersAreRefused) {
  const Scratch dir;
  if (::geteuid() != 0) {
    fs::permissions(dir.path(), fs::perms::owner_read | fs::perms::owner_exec);
    message_of(Kind::kUsage, [&] { OutputFolder out(dir.path()); });
    return;
  }
  // permissions do not bind root, a read-only disk does
  if (::mount("tmpfs", dir.path().c_str(), "tmpfs", MS_RDONLY, "") != 0)
    GTEST_SKIP() << "cannot mount a disk";
  message_of(Kind::kUsage, [&] { OutputFolder out(dir.path()); });
  ::umount(dir.path().c_str());
}

TEST(OutputFolder, AVanishedFolderIsReported) {
  const Scratch dir;
  OutputFolder out(dir / "out");
  fs::remove_all(dir / "out");
  EXPECT_NE(message_of(Kind::kUsage, [&] { out.write("a.png", "x"); }).find("a.png"), std::string::npos);
}

TEST(OutputFolder, AFullDiskKeepsWhatIsThere) {
  const Scratch dir;
  if (::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=64k") != 0)
    GTEST_SKIP() << "cannot mount a small disk";
  {
    OutputFolder out(dir.path());
    out.write("a.png", std::string(20000, 'a'));
    EXPECT_NE(message_of(Kind::kCapacity, [&] { out.write("b.png", std::string(90000, 'b')); }).find("full"),
              std::string::npos);
    message_of(Kind::kCapacity, [&] { out.write("a.png", std::string(90000, 'c')); });
    EXPECT_EQ(read_file(dir / "a.png"), std::string(20000, 'a'));
    EXPECT_EQ(count_files(dir.path()), 1);
  }
  ::umount(dir.path().c_str());
}

TEST(OutputFolder, ThreadsWriteSideBySide) {
  const Scratch dir;
  OutputFolder out(dir.path());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 8; ++i) out.write(str("d", i, "/", t, ".png"), str(t, i));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(count_files(dir.path()), 32);
}

TEST(OutputFolder, AKilledWriterLeavesNothingForLong) {
  const Scratch dir;
  const pid_t child = ::fork();
  if (child == 0) {
    OutputFolder out(dir.path());
    const std::string bytes(1 << 20, 'x');
    for (int i = 0;; ++i) out.write(str(i % 7, ".png"), bytes);
  }
  ::usleep(60000);
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  for (const auto& entry : fs::directory_iterator(dir.path())) {
    if (entry.path().extension() == ".png") {
      EXPECT_EQ(entry.file_size(), size_t{1} << 20);
    }
  }
  OutputFolder out(dir.path());
  out.write("z.png", "z");
  for (const auto& entry : fs::directory_iterator(dir.path()))
    EXPECT_EQ(entry.path().extension(), ".png") << entry.path();
}

// Where nobody waits for a dead worker its number stays taken: the first process of some containers never
// does.
TEST(OutputFolder, WhatAnEndedWriterLeftIsRemovedBeforeAnybodyHasWaitedForIt) {
  const Scratch dir;
  const pid_t child = ::fork();
  if (child == 0) {
    std::ofstream(dir / temporary_name()) << "half";
    ::_exit(0);
  }
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  ASSERT_EQ(count_files(dir.path()), 1);
  OutputFolder out(dir.path());
  out.write("z.png", "z");
  EXPECT_EQ(count_files(dir.path()), 1);
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace atelier::jobs
