// What the driver tells of GPUs, through NVIDIA's management library. It is opened at run time, so that one
// program runs with and without it; the declarations are this file's own. [NVIDIA, NVML API Reference Guide]
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace atelier::machine {

// Fixed while the machine runs.
struct GpuIdentity {
  std::string name, uuid, bus;
  int major = 0, minor = 0;  // compute capability; 0.0: not told
  int64_t memory = 0;        // bytes
};

// At one moment. What cannot be read is unset.
struct GpuReading {
  std::optional<int64_t> memory_used, memory_total;     // bytes
  std::optional<int> load, memory_load;                 // per cent of the last sample's time
  std::optional<double> power, power_limit;             // W
  std::optional<int> clock, most_clock;                 // MHz, of the multiprocessors
  std::optional<int64_t> nvlink_sent, nvlink_received;  // bytes since the driver was loaded, over all links
};

// What two GPUs reach each other by, nearest first.
enum class Path { kNvlink, kSwitch, kHostBridge, kSocket, kSystem, kUnknown };
// As `nvidia-smi topo -m` writes it: NV18 (with the number of links), PIX, PHB, NODE, SYS.
struct GpuPath {
  Path path = Path::kUnknown;
  int links = 0;                // of kNvlink
  bool has_peer_access = true;  // memory of one can be read by the other
};
std::string text(const GpuPath& path);

class Nvml {
 public:
  // The library of this machine, or the one at `path`. Null with a reason where there is none or it
  // does not start.
  static std::unique_ptr<Nvml> open(std::string& reason,
                                    const std::filesystem::path& path = "libnvidia-ml.so.1");
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  std::string driver() const;  // "580.65.06"; empty: not told
  int cuda() const;            // the newest CUDA that the driver runs, 13000 for 13.0; 0: not told
  int count() const;           // GPUs that this process may see, whatever CUDA_VISIBLE_DEVICES says
  GpuIdentity identity(int gpu) const;
  GpuReading read(int gpu) const;
  GpuPath path(int from, int to) const;

 private:
  struct Library;
  explicit Nvml(std::unique_ptr<Library> library);
  std::unique_ptr<Library> library_;
};

}  // namespace atelier::machine
