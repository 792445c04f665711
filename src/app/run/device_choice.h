// Which device draws: from a word of the command line to a device that this machine has.
#pragma once
#include <c10/core/Device.h>

#include <string>
#include <string_view>

namespace atelier::app {

struct DeviceChoice {
  c10::Device device = c10::kCPU;  // without an index: all of its kind
  std::string why;                 // one clause for the header
};

// auto, cpu, cuda, cuda:N. devices: GPUs of this build and machine. Throws Error(kUsage) with the devices
// that there are.
DeviceChoice choose_device(std::string_view asked, int devices);

}  // namespace atelier::app
