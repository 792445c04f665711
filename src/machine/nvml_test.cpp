// Reading GPUs through a library that stands in for NVIDIA's (testdata/fake_nvml.c).
#include "machine/nvml.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace atelier::machine {
namespace {

// Opens the fake in one of its modes.
std::unique_ptr<Nvml> fake(const char* mode, std::string& reason) {
  ::setenv("FAKE_NVML", mode, 1);
  auto nvml = Nvml::open(reason, ATELIER_FAKE_NVML);
  return nvml;
}
std::unique_ptr<Nvml> fake(const char* mode = "") {
  std::string reason;
  auto nvml = fake(mode, reason);
  EXPECT_TRUE(nvml) << reason;
  return nvml;
}

TEST(Nvml, TellsGpusAndTheirDriver) {
  const auto nvml = fake();
  ASSERT_TRUE(nvml);
  EXPECT_EQ(nvml->driver(), "580.65.06");
  EXPECT_EQ(nvml->cuda(), 13000);
  ASSERT_EQ(nvml->count(), 3);
  const auto h200 = nvml->identity(0), v100 = nvml->identity(2);
  EXPECT_EQ(h200.name, "NVIDIA H200");
  EXPECT_EQ(h200.memory, int64_t{141} << 30);
  EXPECT_EQ(h200.major, 9);
  EXPECT_EQ(v100.name, "Tesla V100-SXM2-32GB");
  EXPECT_EQ(v100.major, 7);
  EXPECT_EQ(nvml->identity(1).bus, "00000000:11:00.0");
  EXPECT_EQ(nvml->identity(7).name, "");  // there is none
}

TEST(Nvml, ReadsMemoryLoadPowerAndLinks) {
  const auto nvml = fake();
  ASSERT_TRUE(nvml);
  const auto now = nvml->read(1);
  EXPECT_EQ(now.memory_used, int64_t{2} << 30);
  EXPECT_EQ(now.memory_total, int64_t{141} << 30);
  EXPECT_EQ(now.load, 80);
  EXPECT_EQ(now.memory_load, 25);
  EXPECT_EQ(now.power, 612.5);
  EXPECT_EQ(now.power_limit, 700);
  EXPECT_EQ(now.clock, 1755);
  EXPECT_EQ(now.most_clock, 1980);
  EXPECT_EQ(now.nvlink_sent, 2000 * 1024);
  EXPECT_EQ(now.nvlink_received, 4000 * 1024);
  EXPECT_FALSE(nvml->read(2).nvlink_sent);  // it has no links
}

TEST(Nvml, CountersThatCannotBeReadStayUnset) {
  const auto hidden = fake("nocounters");
  EXPECT_FALSE(hidden->read(0).nvlink_sent);
  EXPECT_TRUE(hidden->read(0).memory_used);
  const auto single = fake("perlink");
  EXPECT_EQ(single->read(0).nvlink_sent, 2000 * 1024);  // two links of 1000 KiB
}

TEST(Nvml, PathsAreLinksOrTheWayOverTheBoard) {
  const auto nvml = fake();
  EXPECT_EQ(text(nvml->path(0, 1)), "NV2");
  EXPECT_TRUE(nvml->path(0, 1).has_peer_access);
  EXPECT_EQ(text(nvml->path(2, 0)), "SYS");
  EXPECT_FALSE(nvml->path(2, 0).has_peer_access);
  EXPECT_EQ(nvml->path(0, 9).path, Path::kUnknown);
}

TEST(Nvml, SaysWhyThereIsNone) {
  std::string reason;
  EXPECT_FALSE(fake("noinit", reason));
  EXPECT_NE(reason.find("does not start: Driver Not Loaded"), std::string::npos) << reason;
  ::setenv("FAKE_NVML", "", 1);
  EXPECT_FALSE(Nvml::open(reason, "/nowhere/libnvidia-ml.so.1"));
  EXPECT_NE(reason.find("is not on this machine"), std::string::npos) << reason;
}

}  // namespace
}  // namespace atelier::machine
