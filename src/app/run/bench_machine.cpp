#include "app/run/bench_machine.h"

#include <dlfcn.h>
#include <sys/sysinfo.h>
#include <torch/headeronly/version.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/doctor/gpus.h"
#include "base/error.h"
#include "base/text.h"
#include "pipeline/device.h"

namespace atelier::app {
namespace {

constexpr auto kBetweenReadings = std::chrono::milliseconds(100);

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return std::string(trim(line.substr(line.find(':') + 1)));
  }
  return "not told";
}

// 13.0 for 13000.
std::string cuda_text(int version) {
  return str(version / 1000, ".", version % 1000 / 10);
}

// 2.27.3 for 22703, as the library in this process says; null where there is none.
Json nccl_version() {
  using GetVersion = int (*)(int*);
  const auto get = reinterpret_cast<GetVersion>(::dlsym(RTLD_DEFAULT, "ncclGetVersion"));
  int version = 0;
  if (!get || get(&version) != 0) return nullptr;
  return str(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

void add_gpus(const machine::Nvml& nvml, Json& out) {
  out["driver"] = nvml.driver();
  out["cuda"] = cuda_text(nvml.cuda());
  if (nvml.count() == 0) return;
  const auto now = nvml.read(0);
  out["clock_mhz"] = or_null(now.clock);
  out["most_clock_mhz"] = or_null(now.most_clock);
  out["power_limit_w"] = or_null(now.power_limit);
  const auto links = links_between(nvml, nvml.count());
  if (!links.empty()) out["links"] = links;
  if (!now.nvlink_sent) out["nvlink_note"] = "NVLink's counters are not readable on this machine";
}

}  // namespace

Json machine_facts(const machine::Nvml* nvml, const std::string& reason, int gpus, bool is_cpu) {
  struct sysinfo info {};
  ::sysinfo(&info);
  Json out{{"kind", "measured"},
           {"device", is_cpu || gpus == 0 ? "CPU" : pipeline::device_name(c10::Device(c10::kCUDA, 0))},
           {"processor", processor()},
           {"cores", std::thread::hardware_concurrency()},
           {"memory_bytes", static_cast<uint64_t>(info.totalram) * info.mem_unit},
           {"gpus", gpus},
           {"torch", TORCH_VERSION},
           {"driver", nullptr},
           {"cuda", nullptr},
           {"nccl", nccl_version()},
           {"clock_mhz", nullptr},
           {"power_limit_w", nullptr}};
  if (nvml) {
    add_gpus(*nvml, out);
  } else {
    out["nvlink_note"] = "NVLink's counters are not readable on this machine: " + reason;
  }
  return out;
}

GpuWatch::GpuWatch(const machine::Nvml* nvml, int gpus) : nvml_(nvml) {
  if (!nvml_) return;
  seen_.resize(static_cast<size_t>(std::min(gpus, nvml_->count())));
  thread_ = std::thread([this] {
    while (!is_over_) {
      look();
      std::this_thread::sleep_for(kBetweenReadings);
    }
  });
}

GpuWatch::~GpuWatch() {
  is_over_ = true;
  if (thread_.joinable()) thread_.join();
}

void GpuWatch::look() {
  for (size_t i = 0; i < seen_.size(); ++i) {
    const auto now = nvml_->read(static_cast<int>(i));
    auto& s = seen_[i];
    s.used = std::max(s.used, now.memory_used.value_or(0));
    if (now.load) s.load += *now.load, ++s.loads;
    if (!now.nvlink_sent) continue;
    if (s.first_sent < 0) s.first_sent = *now.nvlink_sent;
    s.last_sent = *now.nvlink_sent;
  }
}

Json GpuWatch::take() {
  is_over_ = true;
  if (thread_.joinable()) thread_.join();
  look();
  Json out = Json::array();
  for (const auto& s : seen_) {
    Json gpu = Json::object();
    if (s.used > 0) gpu["used_bytes"] = s.used;
    if (s.loads > 0) gpu["load_percent"] = s.load / s.loads;
    if (s.first_sent >= 0) gpu["nvlink_sent_bytes"] = s.last_sent - s.first_sent;
    out.push_back(std::move(gpu));
  }
  return out;
}

}  // namespace atelier::app
