// atelier doctor: what this build and this machine have, what they lack, and what to do about it.
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "app/doctor/gpus.h"
#include "app/doctor/machine.h"
#include "app/run/find_model.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "base/printable.h"
#include "base/version.h"
#include "hub/sources.h"
#include "models/family.h"
#include "models/presets.h"
#include "pipeline/copy_rate.h"
#include "pipeline/device.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

using Grade = Finding::Grade;

std::string joined(const auto& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

Findings build_findings() {
#ifdef ATELIER_CUDA
  const char* kind = "CUDA (NCCL between GPUs, Gloo between CPU ranks)";
#else
  const char* kind = "CPU (Gloo between ranks); ATELIER_BUILD=cuda builds for GPUs";
#endif
  std::vector<std::string_view> families;
  for (const auto* f : models::families()) families.push_back(f->name);
  return {{"atelier", str(kVersion, ", built for ", kind)}, {"families", joined(families)}};
}

Findings model_findings(const Environment& variables) {
  Findings out;
  for (const std::string_view name : hub::built_in_models()) {
    const auto folder = share_folder(variables, program_file()) / "models" / name;
    const bool is_there = std::filesystem::exists(folder / "model_index.json");
    out.push_back({std::string(name), is_there ? folder.string() : "not found",
                   is_there ? Grade::kFine : Grade::kAdvice, is_there ? "" : "set ATELIER_SHARE"});
  }
  const auto cache = hub_folder(variables);
  const bool has_token = !hub_token(variables).empty();
  out.push_back({"hub cache", cache.string() + (std::filesystem::exists(cache) ? "" : " (absent)")});
  out.push_back(
      {"HF_TOKEN", has_token
                       ? "set, or in the file of a login"
                       : "not set, and no login: gated models such as FLUX.1-dev need one to be downloaded "
                         "(export HF_TOKEN=..., or huggingface_hub's login)"});
  out.push_back({"dummies", joined(models::preset_names()) + " (--dummy NAME: random weights, no files)"});
  return out;
}

// Of every two GPUs, both ways, with copies that really go over the link.
Findings link_findings(int gpus) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  Findings out;
  for (int a = 0; a < gpus; ++a) {
    std::string line;
    for (int b = 0; b < gpus; ++b) {
      if (a == b) continue;
      const double rate = pipeline::copy_rate({c10::kCUDA, static_cast<c10::DeviceIndex>(a)},
                                              {c10::kCUDA, static_cast<c10::DeviceIndex>(b)}, kBytes);
      line += str(line.empty() ? "" : ", ", "to ", b, " ", static_cast<int64_t>(rate / 1e9), " GB/s");
    }
    out.push_back({a == 0 ? "copies" : "", str("from ", a, ": ", line, " (measured)")});
  }
  return out;
}

void print(const Findings& findings, int& problems) {
  for (const auto& f : findings) {
    const char* mark = f.grade == Grade::kProblem ? "PROBLEM " : f.grade == Grade::kAdvice ? "note " : "";
    std::printf("%-12s%s%s%s\n", f.what.c_str(), mark, printable(f.found).c_str(),
                f.todo.empty() ? "" : printable(": " + f.todo).c_str());
    problems += f.grade == Grade::kProblem;
  }
}

}  // namespace

int doctor_command(const Arguments& arguments) {
  CLI::App app(
      "Says what this build and this machine have, what they lack, and what to do about it. Exit code 1 "
      "where "
      "something cannot work.",
      "atelier doctor");
  std::string folder = ".";
  app.add_option("--output_dir", folder, "folder whose disk is tested (default: this one)");
  if (!parse_arguments(app, arguments)) return 0;
  const auto variables = environment();
  std::string reason;
  const auto nvml = open_nvml(reason);
  const int usable = pipeline::cuda_devices(), gpus = nvml ? nvml->count() : usable;
  int problems = 0;
  print(build_findings(), problems);
  print(software_findings(nvml.get()), problems);
  print(gpu_findings(nvml.get(), reason, value_of(variables, "CUDA_VISIBLE_DEVICES"), usable), problems);
  if (nvml) {
    for (const auto& line : topology_lines(*nvml)) std::printf("            %s\n", line.c_str());
  }
  if (usable > 1) print(link_findings(usable), problems);
  print(host_findings(gpus), problems);
  print(disk_findings(folder), problems);
  print(model_findings(variables), problems);
  int64_t there = 0;
  for (int i = 0; nvml && i < gpus; ++i) {
    const auto memory = nvml->identity(i).memory;
    there = there == 0 ? memory : std::min(there, memory);
  }
  print(memory_findings(there), problems);
  print(comfy_findings(variables), problems);
  print(package_findings(), problems);
  std::printf("%-12satelier selftest draws on one rank and on two and compares\n", "next");
  return problems > 0 ? 1 : 0;
}

}  // namespace atelier::app
