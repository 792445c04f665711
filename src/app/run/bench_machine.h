// What a benchmark says of the machine it ran on, and of its GPUs while it ran.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "machine/nvml.h"

namespace atelier::app {

// The "machine" of bench/result.h; what cannot be read is null. nvml: null where `reason` says why. gpus: of
// this build and process; is_cpu: ranks run on the CPU all the same.
Json machine_facts(const machine::Nvml* nvml, const std::string& reason, int gpus, bool is_cpu);

// Reads GPUs from construction to take(), again and again.
class GpuWatch {
 public:
  GpuWatch(const machine::Nvml* nvml, int gpus);
  ~GpuWatch();
  GpuWatch(const GpuWatch&) = delete;
  GpuWatch& operator=(const GpuWatch&) = delete;
  // One object per GPU: used_bytes (the most), load_percent (the mean), nvlink_sent_bytes; what cannot be
  // read is left out. Empty without a driver.
  Json take();

 private:
  struct GpuSeen {
    int64_t used = 0, first_sent = -1, last_sent = -1;
    double load = 0;
    int loads = 0;
  };
  void look();

  const machine::Nvml* nvml_;
  std::vector<GpuSeen> seen_;
  std::atomic<bool> is_over_ = false;
  std::thread thread_;
};

}  // namespace atelier::app
