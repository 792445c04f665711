// atelier doctor: what this build and this machine have.
#include <sys/sysinfo.h>

#include <iostream>
#include <thread>

#include "app/cli/commands.h"
#include "app/run/find_model.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "base/version.h"
#include "hub/sources.h"
#include "models/family.h"
#include "models/presets.h"
#include "pipeline/device.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

void line(const char* what, const std::string& found) {
  std::printf("%-12s%s\n", what, found.c_str());
}

std::string families() {
  std::string out;
  for (const auto* f : models::families()) out += (out.empty() ? "" : ", ") + std::string(f->name);
  return out;
}

void print_build() {
#ifdef ATELIER_CUDA
  const char* kind = "CUDA (NCCL between GPUs, Gloo between CPU ranks)";
#else
  const char* kind = "CPU (Gloo between ranks); ATELIER_BUILD=cuda builds for GPUs";
#endif
  line("atelier", str(kVersion, ", built for ", kind));
  line("families", families());
}

void print_machine() {
  struct sysinfo info {};
  ::sysinfo(&info);
  const auto unit = static_cast<int64_t>(info.mem_unit);
  line("CPU", str(std::thread::hardware_concurrency(), " cores, ",
                  report::bytes_text(static_cast<int64_t>(info.totalram) * unit), " memory"));
  const int devices = pipeline::cuda_devices();
  if (devices == 0) line("GPU", "none that this build can use");
  for (int i = 0; i < devices; ++i) {
    line(i == 0 ? "GPU" : "",
         str("cuda:", i, " ", pipeline::device_name({c10::kCUDA, static_cast<c10::DeviceIndex>(i)})));
  }
  std::error_code error;
  const auto space = std::filesystem::space(".", error);
  if (!error) line("disk", str(report::bytes_text(static_cast<int64_t>(space.available)), " free here"));
}

void print_models(const Environment& variables) {
  const auto get = [&](const char* name) { return expand_home(value_of(variables, name), variables); };
  const auto mini = share_folder(variables, program_file()) / "models" / "mini";
  line("mini",
       std::filesystem::exists(mini / "model_index.json") ? mini.string() : "not found: set ATELIER_SHARE");
  const auto cache =
      hub::hub_cache({get("HF_HUB_CACHE"), get("HF_HOME"), get("XDG_CACHE_HOME"), home_folder(variables)});
  line("hub cache", cache.string() + (std::filesystem::exists(cache) ? "" : " (absent)"));
  line("HF_TOKEN", hub_token(variables).empty()
                       ? "not set, and no login: gated models such as FLUX.1-dev need one to be downloaded"
                       : "set, or in the file of a login");
  std::string presets;
  for (const auto& name : models::preset_names()) presets += (presets.empty() ? "" : ", ") + name;
  line("dummies", presets + " (--dummy NAME: random weights, no files)");
}

}  // namespace

int doctor_command(const Arguments& arguments) {
  if (!arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::printf("usage: atelier doctor: says what this build and this machine have; it takes no flags\n");
    return 0;
  }
  if (!arguments.empty()) throw Error(Kind::kUsage, "doctor takes no arguments");
  print_build();
  print_machine();
  print_models(environment());
  return 0;
}

}  // namespace atelier::app
