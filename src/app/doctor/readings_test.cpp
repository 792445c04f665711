// Lines of monitor, from the library that stands in for the driver's.
#include "app/doctor/readings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace atelier::app {
namespace {

std::unique_ptr<machine::Nvml> fake(const char* mode) {
  ::setenv("FAKE_NVML", mode, 1);
  std::string reason;
  auto nvml = machine::Nvml::open(reason, ATELIER_FAKE_NVML);
  EXPECT_TRUE(nvml) << reason;
  return nvml;
}

int64_t commas(const std::string& line) {
  return std::count(line.begin(), line.end(), ',');
}

TEST(Readings, EveryCsvLineHasTheColumnsOfTheHeader) {
  const auto nvml = fake("");
  auto seconds = std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000));
  Readings readings(*nvml, [&] { return seconds; });
  const auto first = readings.csv_lines();
  ASSERT_EQ(first.size(), 3u);
  for (const auto& line : first) EXPECT_EQ(commas(line), commas(csv_header())) << line;
  EXPECT_NE(first[1].find(",1,NVIDIA H200,2048,144384,80,25,612.5,700,1755,1980,,"), std::string::npos)
      << first[1];
  seconds += std::chrono::seconds(2);
  const auto second = readings.csv_lines();
  EXPECT_TRUE(second[0].ends_with(",0,0")) << second[0];  // counters stand still
  EXPECT_TRUE(second[2].ends_with(",,")) << second[2];    // no links
}

TEST(Readings, WhatCannotBeReadIsSaid) {
  const auto nvml = fake("nocounters");
  Readings readings(*nvml);
  const auto lines = readings.text_lines();
  EXPECT_NE(lines[0].find("memory 1024 of 144384 MiB, load 90 %"), std::string::npos) << lines[0];
  EXPECT_NE(lines[0].find("NVLink not readable here"), std::string::npos) << lines[0];
}

}  // namespace
}  // namespace atelier::app
