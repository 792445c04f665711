#include "app/doctor/gpus.h"

#include <algorithm>
#include <cstdlib>
#include <iomanip>
#include <sstream>

#include "base/error.h"
#include "base/text.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

using Grade = Finding::Grade;

constexpr int kAdvisedLeast = 2,
              kAdvisedMost = 8;        // GPUs [Test Plan: xDiT Multi-GPU Optimization, Prerequisites]
constexpr int kOldestCapability = 75;  // that CUDA 13 makes code for

std::string gpu_text(const machine::GpuIdentity& gpu) {
  std::string out = str(gpu.name, ", ", report::bytes_text(gpu.memory));
  if (gpu.major > 0) out += str(", compute capability ", gpu.major, ".", gpu.minor);
  return out;
}

// Numbers of a mask that no GPU has. Other ways to name one (UUIDs, MIG) are not looked into.
std::string unknown_ids(const std::string& mask, int count) {
  std::string out;
  std::istringstream words(mask);
  for (std::string word; std::getline(words, word, ',');) {
    const auto id = to_integer(trim(word));
    if (id && (*id < 0 || *id >= count)) out += (out.empty() ? "" : ", ") + std::to_string(*id);
  }
  return out;
}

Finding visibility(const std::string& mask, int count, int usable) {
  if (const auto bad = unknown_ids(mask, count); !bad.empty()) {
    return {"visible", str("CUDA_VISIBLE_DEVICES=", mask, " names ", bad), Grade::kProblem,
            str("valid numbers are 0 to ", count - 1, "; CUDA sees no GPU behind the first wrong one")};
  }
  if (!mask.empty())
    return {"visible", str(usable, " of ", count, " GPUs (CUDA_VISIBLE_DEVICES=", mask, ")")};
  if (usable == count) return {"visible", str("all ", count)};
  return {"visible", str(usable, " of ", count), Grade::kProblem,
          "this build or its driver cannot use the others: a build for GPUs is needed (ATELIER_BUILD=cuda)"};
}

}  // namespace

std::unique_ptr<machine::Nvml> open_nvml(std::string& reason) {
  const char* other = std::getenv("ATELIER_NVML");
  return other && *other ? machine::Nvml::open(reason, other) : machine::Nvml::open(reason);
}

Findings gpu_findings(const machine::Nvml* nvml, const std::string& reason, const std::string& mask,
                      int usable) {
  if (!nvml) {
    const auto grade = usable > 0 ? Grade::kAdvice : Grade::kFine;
    return {{"GPU", usable > 0 ? str(usable, " that CUDA sees") : "none: ranks run on the CPU", grade,
             "the driver does not tell more: " + reason}};
  }
  Findings out;
  const int count = nvml->count();
  for (int i = 0; i < count; ++i) {
    const auto gpu = nvml->identity(i);
    Finding finding{i == 0 ? "GPU" : "", str(i, ": ", gpu_text(gpu))};
    if (gpu.major > 0 && 10 * gpu.major + gpu.minor < kOldestCapability) {
      finding.grade = Grade::kProblem;
      finding.todo = "this program has no code for it: CUDA 13 ended compute capability below 7.5";
    }
    out.push_back(std::move(finding));
  }
  if (count == 0) return {{"GPU", "the driver knows of none", Grade::kAdvice, "ranks run on the CPU"}};
  if (count < kAdvisedLeast || count > kAdvisedMost) {
    out.push_back({"", str(count, count == 1 ? " GPU" : " GPUs"), Grade::kAdvice,
                   str(kAdvisedLeast, " to ", kAdvisedMost, " are what the layouts are made for")});
  }
  out.push_back(visibility(mask, count, usable));
  const auto links = links_between(*nvml, count);
  if (links == "pcie" || links == "host") {
    out.push_back({"links",
                   links == "pcie" ? "PCIe between some GPUs" : "some GPUs cannot read each other's memory",
                   Grade::kAdvice,
                   "messages are slower than over NVLink: `atelier plan --links " + links +
                       "` says which layout pays"});
  } else if (links == "nvlink") {
    out.push_back({"links", "NVLink between all GPUs"});
  }
  return out;
}

std::vector<std::string> topology_lines(const machine::Nvml& nvml) {
  const int count = nvml.count();
  std::vector<std::string> out;
  if (count < 2) return out;
  const auto row = [&](const std::string& name, const auto& cell) {
    std::ostringstream line;
    line << std::left << std::setw(8) << name;
    for (int to = 0; to < count; ++to) line << std::setw(7) << cell(to);
    const auto text = line.str();
    out.push_back(text.substr(0, text.find_last_not_of(' ') + 1));
  };
  row("", [](int to) { return str("GPU", to); });
  for (int from = 0; from < count; ++from) {
    row(str("GPU", from), [&](int to) {
      if (to == from) return std::string("X");
      const auto path = nvml.path(from, to);
      return machine::text(path) + (path.has_peer_access ? "" : "!");
    });
  }
  out.push_back(
      "NV#: so many NVLinks; PIX: PCIe switches; PHB: over the CPU; NODE, SYS: over its bridges or the "
      "other socket; !: no access to the other's memory");
  return out;
}

std::string links_between(const machine::Nvml& nvml, int gpus) {
  std::string worst = gpus > 1 ? "nvlink" : "";
  for (int a = 0; a < gpus; ++a) {
    for (int b = 0; b < gpus; ++b) {
      if (a == b) continue;
      const auto path = nvml.path(a, b);
      if (path.path == machine::Path::kUnknown) return "";
      if (!path.has_peer_access) return "host";
      if (path.path != machine::Path::kNvlink) worst = "pcie";
    }
  }
  return worst;
}

}  // namespace atelier::app
