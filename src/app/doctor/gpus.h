// GPUs, what lies between them, and whether this process may use them.
#pragma once
#include <string>
#include <vector>

#include "app/doctor/finding.h"
#include "machine/nvml.h"

namespace atelier::app {

// The library that tells of GPUs: ATELIER_NVML names another file than the driver's own. Null with a reason.
std::unique_ptr<machine::Nvml> open_nvml(std::string& reason);

// nvml: null where `reason` says why. mask: CUDA_VISIBLE_DEVICES; empty: not set. usable: GPUs of this
// build and process.
Findings gpu_findings(const machine::Nvml* nvml, const std::string& reason, const std::string& mask,
                      int usable);

// What is between every two GPUs, a row for each, as `nvidia-smi topo -m` shows it; empty below two.
std::vector<std::string> topology_lines(const machine::Nvml& nvml);
// "nvlink" where every two GPUs are joined by it, "pcie" where they reach each other's memory without,
// otherwise "host"; empty where nothing is told.
std::string links_between(const machine::Nvml& nvml, int gpus);

}  // namespace atelier::app
