// A Window of CUDA devices of one host: memory that processes open through CUDA's inter-process handles.
// Inside of the room; built with CUDA only.
#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"

namespace atelier::comm {

// Ends the barriers of a window that a lost peer would hold up for ever. From any thread.
class WindowAbort {
 public:
  WindowAbort();
  ~WindowAbort();
  WindowAbort(const WindowAbort&) = delete;
  WindowAbort& operator=(const WindowAbort&) = delete;
  void set() noexcept { *flag_ = 1; }
  bool is_set() const noexcept { return *flag_ != 0; }
  const volatile int* on_device() const { return flag_; }

 private:
  volatile int* flag_ = nullptr;  // pinned: one address for host and device
};

// One rank's part; every rank of the group calls it. exchange: every rank's word, given one's own; called the
// same number of times on every rank. Null on all ranks where one of them cannot take part: other hosts or
// sizes, no memory, no access from device to device.
std::unique_ptr<Window> open_cuda_window(
    int rank, int size, c10::Device device, int64_t bytes, std::shared_ptr<WindowAbort> abort,
    const std::function<std::vector<std::string>(const std::string&)>& exchange);

}  // namespace atelier::comm
