#include "app/doctor/machine.h"

#include <sys/sysinfo.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "app/settings/home.h"
#include "base/error.h"
#include "base/text.h"
#include "cluster/process.h"
#include "machine/disk.h"
#include "models/vae.h"
#include "pipeline/device.h"
#include "pipeline/model_work.h"
#include "pipeline/tier.h"
#include "plan/planner.h"
#include "report/clock.h"
#include "report/run_report.h"

namespace atelier::app {
namespace fs = std::filesystem;
namespace {

using Grade = Finding::Grade;

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kAdvisedHost = 32 * kGiB;  // [XDIT_USP README, Requirements]
constexpr int kCoresPerGpu = 2;
constexpr int64_t kProbe = int64_t{32} << 20;  // bytes that are written
constexpr double kSlowDisk = 100e6;            // bytes/s
constexpr int64_t kCitedGpu = 16 * kGiB;  // "at least 16GB per GPU" [Test Plan: xDiT Multi-GPU Optimization]
constexpr int kPythonMajor = 3, kPythonMinor = 10;
#ifdef ATELIER_CUDA
constexpr int kNeededCuda = 13000;  // of the driver: what this program is built with
#endif

// The first line that a command prints; empty where there is no such command.
std::string output_of(const char* command) {
  std::FILE* pipe = ::popen(command, "r");
  if (!pipe) return {};
  std::array<char, 256> line{};
  std::string out = std::fgets(line.data(), line.size(), pipe) ? line.data() : "";
  ::pclose(pipe);
  return std::string(trim(out));
}

Finding python_finding() {
  const auto found = output_of("python3 --version 2>/dev/null");  // "Python 3.11.2"
  if (found.empty())
    return {"Python", "not found", Grade::kAdvice,
            "nothing here needs it but ComfyUI's nodes and other tools' scripts"};
  int major = 0, minor = 0;
  const bool is_known = std::sscanf(found.c_str(), "Python %d.%d", &major, &minor) == 2;
  const bool is_old = is_known && (major < kPythonMajor || (major == kPythonMajor && minor < kPythonMinor));
  return {"Python",
          str(found, " found, ", kPythonMajor, ".", kPythonMinor, " needed, by optional parts only"),
          is_old ? Grade::kAdvice : Grade::kFine, is_old ? "the nodes of ComfyUI need a newer one" : ""};
}

std::string cuda_text(int version) {
  return str(version / 1000, ".", version % 1000 / 10);
}

Finding driver_finding(const machine::Nvml* nvml) {
  if (!nvml) return {"driver", "none found"};
  Finding out{"driver", str(nvml->driver(), ", runs CUDA up to ", cuda_text(nvml->cuda()))};
#ifdef ATELIER_CUDA
  out.found += str(", ", cuda_text(kNeededCuda), " needed");
  if (nvml->cuda() < kNeededCuda)
    out.grade = Grade::kProblem, out.todo = "install a newer driver (580 or above)";
#endif
  return out;
}

}  // namespace

Findings host_findings(int gpus) {
  struct sysinfo info {};
  ::sysinfo(&info);
  const auto memory = static_cast<int64_t>(info.totalram) * static_cast<int64_t>(info.mem_unit);
  const int cores = cluster::usable_cores();
  Findings out{{"CPU", str(cores, cores == 1 ? " core" : " cores", " that may be used")},
               {"memory", str(report::bytes_text(memory), ", ",
                              report::bytes_text(report::available_host_bytes()), " free")}};
  if (gpus > 0 && cores < kCoresPerGpu * gpus) {
    out[0].grade = Grade::kAdvice;
    out[0].todo = str("each GPU should have ", kCoresPerGpu, ": they feed it and write its pictures");
  }
  if (memory < kAdvisedHost) {
    out[1].grade = Grade::kAdvice;
    out[1].todo = str(report::bytes_text(kAdvisedHost),
                      " are advised for large models; --offload needs room for all weights");
  }
  return out;
}

Findings disk_findings(const fs::path& folder) {
  const auto system = machine::file_system_of(folder);
  if (!system)
    return {{"disk", "nothing is told about " + folder.string(), Grade::kAdvice, "is /proc there?"}};
  Findings out{
      {"disk", str(folder.string(), ": ", system->type, ", ", report::bytes_text(system->free), " free")}};
  if (system->is_network) {
    out[0].grade = Grade::kAdvice;
    out[0].todo = "a network drive: many small pictures are written faster to a local one (--output_dir)";
  }
  const auto rate = machine::write_rate(folder, kProbe);
  if (!rate) {
    out.push_back({"", "cannot be written", Grade::kProblem, "choose another folder with --output_dir"});
    return out;
  }
  out.push_back({"", str("writes ", static_cast<int64_t>(*rate / 1e6), " MB/s (measured with ", kProbe >> 20,
                         " MiB)")});
  if (*rate < kSlowDisk)
    out.back().grade = Grade::kAdvice, out.back().todo = "slow: pictures may wait for the disk";
  return out;
}

namespace {

Finding attention_finding() {
  const c10::Device gpu(c10::kCUDA, 0);
  const auto problem = pipeline::flash3_problem(gpu);
  if (problem.empty()) return {"attention", "FlashAttention 3 for long sequences in bfloat16, cuDNN else"};
  Finding finding{"attention", "cuDNN; " + problem};
  if (pipeline::cuda_capability(gpu) / 10 == 9) {  // it would work here if its package did
    finding.grade = Finding::Grade::kAdvice;
    finding.todo = "long sequences take up to a fifth longer: .venv/bin/pip install --no-deps fa3-fwd==0.0.3";
  }
  return finding;
}

}  // namespace

Findings software_findings(const machine::Nvml* nvml) {
  Findings out{driver_finding(nvml)};
#ifdef ATELIER_CUDA
  out.push_back({"CUDA", str(cuda_text(kNeededCuda), ", built in (NCCL between GPUs)")});
#else
  out.push_back({"CUDA", "none: this build is for the CPU", Grade::kFine, ""});
#endif
  out.push_back({"libtorch", str(TORCH_VERSION, ", built in; no Python package of it is needed")});
  if (pipeline::cuda_devices() > 0) out.push_back(attention_finding());
  out.push_back({"ROCm", "untested: AMD GPUs are not used"});
  out.push_back(python_finding());
  return out;
}

Findings package_findings() {
  return {{"not needed",
           "xdit, usp: not the names of any package with these contents (xDiT is xfuser, its attention "
           "yunchang)"},
          {"",
           "xfuser, yunchang, flash-attn, diffusers, transformers, accelerate, torchvision, torchaudio: the "
           "engine "
           "draws, encodes and decodes by itself"},
          {"", "huggingface_hub: downloads are made here (--download); its login is read"},
          {"", "safetensors, Pillow: files are read and written by libraries of this program"}};
}

Findings comfy_findings(const Environment& variables) {
  std::vector<fs::path> places;
  if (const auto named = value_of(variables, "COMFYUI_PATH"); !named.empty())
    places.emplace_back(expand_home(named, variables));
  for (const char* usual : {"~/ComfyUI", "~/comfyui", "~/comfy/ComfyUI"})
    places.emplace_back(expand_home(usual, variables));
  std::error_code ignored;
  for (const auto& place : places) {
    if (fs::exists(place / "main.py", ignored) && fs::is_directory(place / "custom_nodes", ignored))
      return {{"ComfyUI", place.string()}};
  }
  return {{"ComfyUI", "not found (COMFYUI_PATH names it); only its nodes need it"}};
}

Findings memory_findings(int64_t there) {
  const auto repo = pipeline::ModelRepo::dummy("FLUX.1-dev", 0);
  const auto facts = repo.check();
  const plan::Workload work{
      .image_tokens = repo.image_tokens(1024, 1024), .text_tokens = 512, .steps = 28, .batch = 1};
  plan::PlanQuery q{.step = {.layout = {facts, work},
                             .model = pipeline::model_work(repo),
                             .grid_tokens = pipeline::grid_tokens(repo, 1024, 1024)},
                    .hardware = plan::hardware_presets().front()};
  for (const auto& [part, count] : facts.parameters) {
    const auto kind = repo.component(part).kind;
    if (kind == pipeline::Component::ComponentKind::kEncoder) q.memory.encoders += count;
    if (kind == pipeline::Component::ComponentKind::kVae) q.memory.vae += count;
  }
  q.memory.pixels = 1024 * 1024;
  const auto vae = models::find_vae(repo.vae()).facts(repo.vae());
  q.memory.latent_rows = 1024 / vae.spatial;
  q.memory.vae_width = vae.full_width;
  Findings out;
  for (const int gpus : {1, 2, 4, 8}) {
    std::string line = str(gpus, gpus == 1 ? " GPU:  " : " GPUs: ");
    for (const auto& [kind, name] :
         {std::pair{plan::Offload::kNone, "all in place"}, {plan::Offload::kWhole, "--offload model"}}) {
      q.memory.offload = kind;
      const auto all = plan::ranked(q, gpus);
      const auto& least = *std::min_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return std::pair(a.most().total(), a.run_s) < std::pair(b.most().total(), b.run_s);
      });
      const int64_t most = least.most().total();
      line += str(kind == plan::Offload::kNone ? "" : "; ", name, " ", report::bytes_text(most), " (",
                  plan::to_string(least.degrees), ")",
                  most <= kCitedGpu ? ", fits in 16 GiB" : ", more than 16 GiB",
                  there > 0 ? (most <= there ? ", fits here" : ", does not fit here") : "");
    }
    out.push_back({gpus == 1 ? "FLUX.1-dev" : "", line + " (modelled, least per GPU)"});
  }
  return out;
}

}  // namespace atelier::app
