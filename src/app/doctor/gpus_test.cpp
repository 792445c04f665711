// What doctor says of GPUs, through the library that stands in for the driver's.
#include "app/doctor/gpus.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace atelier::app {
namespace {

std::unique_ptr<machine::Nvml> fake() {
  ::setenv("FAKE_NVML", "", 1);
  std::string reason;
  auto nvml = machine::Nvml::open(reason, ATELIER_FAKE_NVML);
  EXPECT_TRUE(nvml) << reason;
  return nvml;
}

std::string told(const Findings& findings) {
  std::string out;
  for (const auto& f : findings)
    out += f.what + "|" + f.found + "|" + (f.grade == Finding::Grade::kProblem ? "PROBLEM" : "") + "|" +
           f.todo + "\n";
  return out;
}
void expect_mentions(const std::string& text, const std::vector<std::string>& words) {
  for (const auto& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << " in: " << text;
}

TEST(DoctorGpus, NamesEachGpuAndRefusesThoseWithoutCode) {
  const auto nvml = fake();
  const auto text = told(gpu_findings(nvml.get(), "", "", 3));
  expect_mentions(text, {"0: NVIDIA H200", "2: Tesla V100-SXM2-32GB", "compute capability 9.0",
                         "PROBLEM|this program has no code", "visible|all 3",
                         "cannot read each other's memory", "--links host"});
}

TEST(DoctorGpus, WrongNumbersOfAMaskAreToldWithTheValidOnes) {
  const auto nvml = fake();
  expect_mentions(told(gpu_findings(nvml.get(), "", "0,7", 1)),
                  {"names 7", "PROBLEM", "valid numbers are 0 to 2"});
  expect_mentions(told(gpu_findings(nvml.get(), "", "0,1", 2)), {"2 of 3 GPUs (CUDA_VISIBLE_DEVICES=0,1)"});
  expect_mentions(told(gpu_findings(nvml.get(), "", "", 0)), {"0 of 3", "PROBLEM", "a build for GPUs"});
}

TEST(DoctorGpus, WithoutADriverTheReasonIsGiven) {
  expect_mentions(told(gpu_findings(nullptr, "no library", "", 0)),
                  {"none: ranks run on the CPU", "no library"});
}

TEST(DoctorGpus, TheMatrixShowsLinksAndMissingAccess) {
  const auto nvml = fake();
  const auto lines = topology_lines(*nvml);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[0], "        GPU0   GPU1   GPU2");
  EXPECT_EQ(lines[1], "GPU0    X      NV2    SYS!");
  EXPECT_EQ(lines[3], "GPU2    SYS!   SYS!   X");
  EXPECT_EQ(links_between(*nvml, 2), "nvlink");
  EXPECT_EQ(links_between(*nvml, 3), "host");
  EXPECT_EQ(links_between(*nvml, 1), "");
}

}  // namespace
}  // namespace atelier::app
