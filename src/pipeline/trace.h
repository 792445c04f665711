// What a rank did during one batch, as a file that Perfetto and chrome://tracing open.
#pragma once
#include <c10/core/Device.h>

#include <filesystem>

namespace atelier::pipeline {

// From construction to destruction: phases, steps and operators of this thread and, on a GPU, every kernel
// and copy with its time on the device, kernels of recorded graphs too. One at a time in a process.
class Trace {
 public:
  Trace(std::filesystem::path file, c10::Device device);
  ~Trace();  // waits for the device and writes the file; what cannot be written is logged
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

 private:
  std::filesystem::path file_;
  c10::Device device_;
};

}  // namespace atelier::pipeline
