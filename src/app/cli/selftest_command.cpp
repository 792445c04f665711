// atelier selftest: does everything work that a picture needs?
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/cli/parse.h"
#include "app/doctor/gpus.h"
#include "app/doctor/machine.h"
#include "app/run/time_layout.h"
#include "base/error.h"
#include "base/files.h"
#include "base/version.h"
#include "media/image.h"
#include "models/family.h"
#include "pipeline/device.h"

namespace atelier::app {
namespace {

constexpr int kMostLevels = 2;  // of 255: what another order of sums may change

// A folder that goes with it.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "atelier-selftest-XXXXXX").string();
    if (!::mkdtemp(name.data()))
      throw Error(Kind::kCapacity, "no folder can be made in the system's folder for temporary files");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct SelftestArguments {
  std::string device = "auto", timeout = "120";
};

Resolved settings_of(const SelftestArguments& asked, const std::string& strategy) {
  const Arguments flags{"--model_name",
                        "mini",
                        "--prompt",
                        "a red circle above a blue square",
                        "--seed",
                        "7",
                        "--height",
                        "128",
                        "--width",
                        "128",
                        "--num_inference_steps",
                        "4",
                        "--num_iterations",
                        "1",
                        "--warmup_calls",
                        "0",
                        "--max_retries",
                        "0",
                        "--quiet",
                        "--device",
                        asked.device,
                        "--timeout",
                        asked.timeout,
                        "--start_timeout",
                        asked.timeout,
                        "--strategy",
                        strategy};
  return resolve(kRun, parse_flags({kRun, "selftest", "", {}}, flags).flags, {}, {});
}

media::Image drawn(const SelftestArguments& asked, const std::string& strategy,
                   const std::filesystem::path& folder) {
  const Interrupt interrupt;
  const Json row = time_layout(settings_of(asked, strategy), environment(), interrupt, folder);
  if (row.contains("problem")) throw Error(Kind::kItem, row["problem"].get<std::string>());
  for (const auto& file : std::filesystem::directory_iterator(folder / row["layout"].get<std::string>())) {
    if (file.path().extension() == ".png") return media::decode(read_file(file.path()));
  }
  throw Error(Kind::kItem, "no picture was written");
}

int farthest(const media::Image& a, const media::Image& b) {
  if (a.rgb.size() != b.rgb.size()) return 255;
  int most = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(int{a.rgb[i]} - int{b.rgb[i]}));
  return most;
}

std::string check_gpus() {
  std::string reason;
  const auto nvml = open_nvml(reason);
  const int usable = pipeline::cuda_devices();
  for (const auto& f :
       gpu_findings(nvml.get(), reason, value_of(environment(), "CUDA_VISIBLE_DEVICES"), usable)) {
    if (f.grade == Finding::Grade::kProblem) throw Error(Kind::kItem, f.found + ": " + f.todo);
  }
  return usable > 0 ? str(usable, usable == 1 ? " GPU" : " GPUs", " of this build")
                    : "none: ranks run on the CPU";
}

// Two ranks on two GPUs where there are two, otherwise on the CPU.
std::string check_model(const SelftestArguments& asked) {
  const Folder folder;
  const auto one = drawn(asked, "data=1", folder.path());
  SelftestArguments two = asked;
  if (pipeline::cuda_devices() < 2) two.device = "cpu";
  const bool is_same_device = two.device == asked.device || pipeline::cuda_devices() == 0;
  const auto alone = is_same_device ? one : drawn(two, "data=1", folder.path() / "cpu");
  const int levels = farthest(alone, drawn(two, "ulysses=2", folder.path()));
  if (levels > kMostLevels)
    throw Error(Kind::kItem,
                str("two ranks drew another picture than one: ", levels, " of 255 levels apart"));
  return str("mini drawn on one rank, and on two over ",
             two.device == "cpu" || pipeline::cuda_devices() == 0 ? "Gloo" : "NCCL", ": at most ", levels,
             " of 255 levels apart");
}

std::string check_libraries() {
  std::string out;
  for (const auto& f : software_findings(nullptr)) {
    if (f.what == "CUDA" || f.what == "libtorch") out += str(out.empty() ? "" : "; ", f.what, " ", f.found);
  }
  return out;
}

}  // namespace

int selftest_command(const Arguments& arguments) {
  CLI::App app(
      "Six checks, a line each: the program, GPUs, settings, the model (drawn on one rank and on two), what "
      "it "
      "depends on, ComfyUI. Exit code 1 where one fails.",
      "atelier selftest");
  SelftestArguments asked;
  app.add_option("--device", asked.device, "auto (default), cpu, cuda or cuda:N");
  app.add_option("--timeout", asked.timeout, "seconds that starting, and drawing, may take (120)");
  if (!parse_arguments(app, arguments)) return 0;
  const std::pair<const char*, std::function<std::string()>> checks[] = {
      {"program",
       [] { return str("atelier ", kVersion, ", ", models::families().size(), " families of models"); }},
      {"GPUs", check_gpus},
      {"settings", [&] { return "read: " + settings_of(asked, "ulysses=2").settings.backend.strategy; }},
      {"model", [&] { return check_model(asked); }},
      {"libraries", check_libraries},
      {"ComfyUI", [] { return comfy_findings(environment()).front().found; }}};
  int failed = 0;
  for (const auto& [name, check] : checks) {
    try {
      const auto line = check();
      std::cout << "ok      " << name << ": " << line << std::endl;
    } catch (const std::exception& e) {
      ++failed;
      std::cout << "FAILED  " << name << ": " << pipeline::reason_of(e) << std::endl;
    }
  }
  return failed > 0 ? 1 : 0;
}

}  // namespace atelier::app
