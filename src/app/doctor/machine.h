// The host, its disks, the software it has, and what FLUX would need of its GPUs.
#pragma once
#include <filesystem>

#include "app/compat/environment.h"
#include "app/doctor/finding.h"
#include "machine/nvml.h"
#include "plan/hardware.h"

namespace atelier::app {

// Memory and cores, per GPU where there are any.
Findings host_findings(int gpus);
// Where pictures go: its file system, what is free, how fast it takes what is written.
Findings disk_findings(const std::filesystem::path& folder);
// Driver, CUDA, libtorch, Python: found beside needed. nvml: null without a driver.
Findings software_findings(const machine::Nvml* nvml);
// Packages that documents of other tools ask for and this program does without, with the reason.
Findings package_findings();
// ComfyUI's folder: COMFYUI_PATH, or those where it usually is.
Findings comfy_findings(const Environment& variables);
// What FLUX.1-dev needs of each of 1, 2, 4 and 8 GPUs at least, against 16 GiB and against those
// that are there.
Findings memory_findings(int64_t there);

}  // namespace atelier::app
