#include "pipeline/step_timer.h"

#include <chrono>

#ifdef ATELIER_CUDA
#include <ATen/cuda/CUDAEvent.h>
#endif

namespace atelier::pipeline {

struct StepTimer::Marks {
  bool is_cuda;
  std::vector<std::chrono::steady_clock::time_point> host;
#ifdef ATELIER_CUDA
  std::vector<at::cuda::CUDAEvent> device;
#endif
};

StepTimer::StepTimer(c10::Device device) : marks_(std::make_unique<Marks>(device.is_cuda())) {}
StepTimer::~StepTimer() = default;

void StepTimer::mark() {
#ifdef ATELIER_CUDA
  if (marks_->is_cuda) return marks_->device.emplace_back(cudaEventDefault).record();
#endif
  marks_->host.push_back(std::chrono::steady_clock::now());
}

void StepTimer::wait_for([[maybe_unused]] int mark) const {
#ifdef ATELIER_CUDA
  if (marks_->is_cuda) marks_->device.at(static_cast<size_t>(mark)).synchronize();
#endif
}

std::vector<double> StepTimer::ms() const {
  std::vector<double> each;
#ifdef ATELIER_CUDA
  const auto& events = marks_->device;
  if (!events.empty()) events.back().synchronize();
  for (size_t i = 1; i < events.size(); ++i) each.push_back(events[i - 1].elapsed_time(events[i]));
#endif
  const auto& times = marks_->host;
  for (size_t i = 1; i < times.size(); ++i)
    each.push_back(std::chrono::duration<double, std::milli>(times[i] - times[i - 1]).count());
  return each;
}

}  // namespace atelier::pipeline
