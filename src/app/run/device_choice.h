// Which device draws: from a word of the command line to a device that this machine has.
#pragma once
#include <c10/core/Device.h>

#include <string>
#include <string_view>

#include "app/settings/resolve.h"

namespace atelier::app {

struct DeviceChoice {
  c10::Device device = c10::kCPU;  // without an index: all of its kind
  std::string why;                 // one clause for the header
};

// auto, cpu, cuda, cuda:N. devices: GPUs of this build and machine. Throws Error(kUsage) with the devices
// that there are.
DeviceChoice choose_device(std::string_view asked, int devices);

// The denoiser's type where none is asked for. capability: of the GPU, 75 for 7.5 (T4), which multiplies
// float16 and not bfloat16; 0: nobody knows.
const char* usual_type(c10::Device device, int capability, Surface surface);
// The one that is asked for, or the usual one.
std::string denoiser_type(const Resolved& resolved, c10::Device device);

}  // namespace atelier::app
