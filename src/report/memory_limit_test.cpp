// Limits of containers, as both versions of control groups write them.
#include "report/memory_limit.h"

#include <gtest/gtest.h>

#include "base/scratch.h"

namespace atelier::report {
namespace {
namespace fs = std::filesystem;

class Groups {
 public:
  explicit Groups(std::string_view membership) { dir_.write("self", membership); }
  void write(const fs::path& file, std::string_view text) {
    fs::create_directories((dir_ / "mounts" / file).parent_path());
    dir_.write(("mounts" / file).string(), text);
  }
  std::optional<int64_t> memory() const { return memory_left(dir_ / "self", dir_ / "mounts"); }
  std::optional<int64_t> processes() const { return processes_left(dir_ / "self", dir_ / "mounts"); }

 private:
  Scratch dir_;
};

TEST(MemoryLimit, Version2TakesTheTightestGroupAndCountsCacheAsFree) {
  Groups g("0::/user.slice/run.scope\n");
  EXPECT_FALSE(g.memory());
  g.write("user.slice/run.scope/memory.max", "max\n");
  EXPECT_FALSE(g.memory());
  g.write("user.slice/memory.max", "209715200\n");
  g.write("user.slice/memory.current", "104857600\n");
  EXPECT_EQ(g.memory(), 104857600);
  g.write("user.slice/memory.stat",
          "anon 1\nfile 9\ninactive_file 1000\nactive_file 20\nslab_reclaimable 3\n");
  EXPECT_EQ(g.memory(), 104857600 + 1023);
  g.write("user.slice/run.scope/memory.max", "1000\n");
  g.write("user.slice/run.scope/memory.current", "4000\n");
  EXPECT_EQ(g.memory(), 0);
}

TEST(MemoryLimit, AContainerSeesItsGroupAsTheRoot) {
  Groups g("0::/docker/0123abc\n");
  g.write("memory.max", "1000");
  g.write("memory.current", "400");
  EXPECT_EQ(g.memory(), 600);
}

TEST(MemoryLimit, Version1KnowsNoWordForNone) {
  Groups g("12:cpu,cpuacct:/x\n5:memory:/docker/1\n3:pids:/docker/1\n");
  g.write("memory/memory.limit_in_bytes", "9223372036854771712\n");
  g.write("memory/memory.usage_in_bytes", "77\n");
  EXPECT_FALSE(g.memory());
  g.write("memory/docker/1/memory.limit_in_bytes", "5000\n");
  g.write("memory/docker/1/memory.usage_in_bytes", "3000\n");
  g.write("memory/docker/1/memory.stat", "cache 2000\ntotal_inactive_file 500\ntotal_active_file 100\n");
  EXPECT_EQ(g.memory(), 2600);
  EXPECT_FALSE(g.processes());
  g.write("pids/docker/1/pids.max", "100\n");
  g.write("pids/docker/1/pids.current", "40\n");
  EXPECT_EQ(g.processes(), 60);
}

TEST(MemoryLimit, NothingThereIsNoLimit) {
  EXPECT_FALSE(memory_left("/nonexistent", "/nonexistent"));
  Groups g("garbage\n::\n1:memory\n");
  EXPECT_FALSE(g.memory());
}

}  // namespace
}  // namespace atelier::report
