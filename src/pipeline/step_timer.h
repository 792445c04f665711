// When a device passes the steps of a request: read at the end, so that nothing waits for it meanwhile.
#pragma once
#include <c10/core/Device.h>

#include <memory>
#include <vector>

namespace atelier::pipeline {

class StepTimer {
 public:
  explicit StepTimer(c10::Device device);
  ~StepTimer();
  // Here, in the order of what is queued on the current stream. On the CPU: now.
  void mark();
  // The host waits until the device has passed this mark; marks count from 0.
  void wait_for(int mark) const;
  // Milliseconds from each mark to the next. Waits for the last one.
  std::vector<double> ms() const;

 private:
  struct Marks;
  std::unique_ptr<Marks> marks_;
};

}  // namespace atelier::pipeline
