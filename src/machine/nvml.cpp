#include "machine/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "base/error.h"

namespace atelier::machine {
// What the driver's library takes, as nvml.h declares it.
namespace abi {

using Device = void*;
struct MemoryInfo {
  unsigned long long total, free, used;
};
struct Utilisation {
  unsigned gpu, memory;
};
struct PciInfo {
  std::array<char, 16> legacy;
  unsigned domain, bus, device, id, subsystem;
  std::array<char, 32> bus_id;
};
struct FieldValue {
  unsigned field, scope;
  long long time, latency;
  int type, status;
  union {
    double d;
    unsigned u;
    unsigned long long ull;
  } value;
};

}  // namespace abi

namespace {

using namespace abi;

constexpr int kSuccess = 0;
constexpr unsigned kNvlinkSent = 138, kNvlinkReceived = 139;  // KiB
constexpr unsigned kAllLinks = std::numeric_limits<unsigned>::max();
constexpr int kMostLinks = 18;
constexpr int kClockOfMultiprocessors = 1;
constexpr unsigned kReading = 0;  // of peer-to-peer capabilities
// nvmlGpuTopologyLevel_t
constexpr int kManySwitches = 20, kHostBridgeLevel = 30, kNode = 40;

}  // namespace

// Functions that are not in this driver stay null.
struct Nvml::Library {
  void* handle = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  const char* (*error_text)(int) = nullptr;
  int (*driver)(char*, unsigned) = nullptr;
  int (*cuda)(int*) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*device)(unsigned, Device*) = nullptr;
  int (*name)(Device, char*, unsigned) = nullptr;
  int (*uuid)(Device, char*, unsigned) = nullptr;
  int (*pci)(Device, PciInfo*) = nullptr;
  int (*capability)(Device, int*, int*) = nullptr;
  int (*memory)(Device, MemoryInfo*) = nullptr;
  int (*utilisation)(Device, Utilisation*) = nullptr;
  int (*power)(Device, unsigned*) = nullptr;
  int (*power_limit)(Device, unsigned*) = nullptr;
  int (*clock)(Device, int, unsigned*) = nullptr;
  int (*most_clock)(Device, int, unsigned*) = nullptr;
  int (*fields)(Device, int, FieldValue*) = nullptr;
  int (*link_state)(Device, unsigned, unsigned*) = nullptr;
  int (*link_end)(Device, unsigned, PciInfo*) = nullptr;
  int (*peer)(Device, Device, unsigned, int*) = nullptr;
  int (*ancestor)(Device, Device, int*) = nullptr;

  template <class F>
  void find(F*& function, const char* symbol) {
    function = reinterpret_cast<F*>(::dlsym(handle, symbol));
  }
  void find_all() {
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(error_text, "nvmlErrorString");
    find(driver, "nvmlSystemGetDriverVersion");
    find(cuda, "nvmlSystemGetCudaDriverVersion_v2");
    find(count, "nvmlDeviceGetCount_v2");
    find(device, "nvmlDeviceGetHandleByIndex_v2");
    find(name, "nvmlDeviceGetName");
    find(uuid, "nvmlDeviceGetUUID");
    find(pci, "nvmlDeviceGetPciInfo_v3");
    find(capability, "nvmlDeviceGetCudaComputeCapability");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(utilisation, "nvmlDeviceGetUtilizationRates");
    find(power, "nvmlDeviceGetPowerUsage");
    find(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find(clock, "nvmlDeviceGetClockInfo");
    find(most_clock, "nvmlDeviceGetMaxClockInfo");
    find(fields, "nvmlDeviceGetFieldValues");
    find(link_state, "nvmlDeviceGetNvLinkState");
    find(link_end, "nvmlDeviceGetNvLinkRemotePciInfo_v2");
    find(peer, "nvmlDeviceGetP2PStatus");
    find(ancestor, "nvmlDeviceGetTopologyCommonAncestor");
  }

  ~Library() {
    if (handle) ::dlclose(handle);
  }

  std::optional<Device> at(int gpu) const {
    Device found = nullptr;
    if (device == nullptr || device(static_cast<unsigned>(gpu), &found) != kSuccess) return std::nullopt;
    return found;
  }
  // What a function writes; unset where there is no such function or it says no.
  template <class T, class F, class... Arguments>
  static std::optional<T> ask(F* function, Arguments... arguments) {
    T value{};
    if (function == nullptr || function(arguments..., &value) != kSuccess) return std::nullopt;
    return value;
  }
  template <class F, class... Arguments>
  static std::string ask_text(F* function, Arguments... arguments) {
    std::array<char, 96> buffer{};
    if (function == nullptr ||
        function(arguments..., buffer.data(), static_cast<unsigned>(buffer.size())) != kSuccess)
      return {};
    return buffer.data();
  }

  // Over all links at once; where the driver does not add up, link by link.
  std::optional<int64_t> link_bytes(Device d, unsigned field) const {
    if (fields == nullptr) return std::nullopt;
    const auto value_of = [&](unsigned scope) -> std::optional<int64_t> {
      FieldValue v{};
      v.field = field, v.scope = scope;
      if (fields(d, 1, &v) != kSuccess || v.status != kSuccess) return std::nullopt;
      return static_cast<int64_t>(v.value.ull) * 1024;
    };
    if (const auto all = value_of(kAllLinks)) return all;
    std::optional<int64_t> sum;
    for (unsigned link = 0; link < kMostLinks; ++link) {
      if (const auto one = value_of(link)) sum = sum.value_or(0) + *one;
    }
    return sum;
  }

  // NVLinks between two GPUs: those that end at the other one, or, of ends in a switch (an address of no
  // GPU), as many as both have.
  int links_between(Device from, Device to) const {
    const auto target = ask<PciInfo>(pci, to);
    if (!target) return 0;
    const auto ends = active_link_ends(from);
    const auto direct =
        std::count_if(ends.begin(), ends.end(), [&](const auto& e) { return is_same(e, *target); });
    return static_cast<int>(direct > 0 ? direct : std::min(switched(ends), switched(active_link_ends(to))));
  }

  // The addresses at the other ends of a GPU's active links.
  std::vector<PciInfo> active_link_ends(Device gpu) const {
    std::vector<PciInfo> out;
    for (unsigned link = 0; link < kMostLinks; ++link) {
      const auto state = ask<unsigned>(link_state, gpu, link);
      if (!state || *state == 0) continue;
      if (const auto end = ask<PciInfo>(link_end, gpu, link)) out.push_back(*end);
    }
    return out;
  }

  // How many of these ends are no GPU of this machine.
  ptrdiff_t switched(const std::vector<PciInfo>& ends) const {
    std::vector<PciInfo> gpus;
    const auto all = static_cast<int>(ask<unsigned>(count).value_or(0));
    for (int i = 0; i < all; ++i) {
      const auto gpu = at(i);
      const auto address = gpu ? ask<PciInfo>(pci, *gpu) : std::nullopt;
      if (address) gpus.push_back(*address);
    }
    return std::count_if(ends.begin(), ends.end(), [&](const auto& end) {
      return std::none_of(gpus.begin(), gpus.end(), [&](const auto& gpu) { return is_same(end, gpu); });
    });
  }

  static bool is_same(const PciInfo& a, const PciInfo& b) {
    return a.domain == b.domain && a.bus == b.bus && a.device == b.device;
  }
};

Nvml::Nvml(std::unique_ptr<Library> library) : library_(std::move(library)) {}

Nvml::~Nvml() {
  if (library_->shutdown) library_->shutdown();
}

std::unique_ptr<Nvml> Nvml::open(std::string& reason, const std::filesystem::path& path) {
  auto library = std::make_unique<Library>();
  library->handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library->handle) {
    reason = str(path.string(),
                 " is not on this machine: no NVIDIA driver is installed, or the container hides it");
    return nullptr;
  }
  library->find_all();
  if (!library->init || !library->count || !library->device) {
    reason = path.string() + " has not the functions that it should have";
    return nullptr;
  }
  if (const int status = library->init(); status != kSuccess) {
    reason = str(path.string(), " does not start: ",
                 library->error_text ? library->error_text(status) : str("error ", status).c_str());
    return nullptr;
  }
  return std::unique_ptr<Nvml>(new Nvml(std::move(library)));
}

std::string Nvml::driver() const {
  return Library::ask_text(library_->driver);
}

int Nvml::cuda() const {
  return Library::ask<int>(library_->cuda).value_or(0);
}

int Nvml::count() const {
  return static_cast<int>(Library::ask<unsigned>(library_->count).value_or(0));
}

GpuIdentity Nvml::identity(int gpu) const {
  GpuIdentity out;
  const auto device = library_->at(gpu);
  if (!device) return out;
  out.name = Library::ask_text(library_->name, *device);
  out.uuid = Library::ask_text(library_->uuid, *device);
  if (const auto pci = Library::ask<PciInfo>(library_->pci, *device)) out.bus = pci->bus_id.data();
  if (library_->capability) library_->capability(*device, &out.major, &out.minor);
  if (const auto memory = Library::ask<MemoryInfo>(library_->memory, *device))
    out.memory = static_cast<int64_t>(memory->total);
  return out;
}

GpuReading Nvml::read(int gpu) const {
  GpuReading out;
  const auto device = library_->at(gpu);
  if (!device) return out;
  if (const auto memory = Library::ask<MemoryInfo>(library_->memory, *device)) {
    out.memory_used = static_cast<int64_t>(memory->used);
    out.memory_total = static_cast<int64_t>(memory->total);
  }
  if (const auto load = Library::ask<Utilisation>(library_->utilisation, *device))
    out.load = static_cast<int>(load->gpu), out.memory_load = static_cast<int>(load->memory);
  if (const auto mw = Library::ask<unsigned>(library_->power, *device)) out.power = *mw / 1e3;
  if (const auto mw = Library::ask<unsigned>(library_->power_limit, *device)) out.power_limit = *mw / 1e3;
  if (const auto mhz = Library::ask<unsigned>(library_->clock, *device, kClockOfMultiprocessors))
    out.clock = static_cast<int>(*mhz);
  if (const auto mhz = Library::ask<unsigned>(library_->most_clock, *device, kClockOfMultiprocessors))
    out.most_clock = static_cast<int>(*mhz);
  out.nvlink_sent = library_->link_bytes(*device, kNvlinkSent);
  out.nvlink_received = library_->link_bytes(*device, kNvlinkReceived);
  return out;
}

GpuPath Nvml::path(int from, int to) const {
  GpuPath out;
  const auto a = library_->at(from), b = library_->at(to);
  if (!a || !b) return out;
  if (const auto peer = Library::ask<int>(library_->peer, *a, *b, kReading))
    out.has_peer_access = *peer == kSuccess;
  const auto level = Library::ask<int>(library_->ancestor, *a, *b);
  if (const int links = library_->links_between(*a, *b); links > 0) {
    out.path = Path::kNvlink, out.links = links;
  } else if (level) {
    out.path = *level <= kManySwitches      ? Path::kSwitch
               : *level <= kHostBridgeLevel ? Path::kHostBridge
               : *level <= kNode            ? Path::kSocket
                                            : Path::kSystem;
  }
  return out;
}

std::string text(const GpuPath& path) {
  switch (path.path) {
    case Path::kNvlink:
      return str("NV", path.links);
    case Path::kSwitch:
      return "PIX";
    case Path::kHostBridge:
      return "PHB";
    case Path::kSocket:
      return "NODE";
    case Path::kSystem:
      return "SYS";
    default:
      return "?";
  }
}

}  // namespace atelier::machine
