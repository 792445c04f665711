#include "pipeline/trace.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <set>

#include "base/error.h"
#include "base/log.h"
#include "pipeline/device.h"

namespace atelier::pipeline {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

Trace::Trace(std::filesystem::path file, c10::Device device) : file_(std::move(file)), device_(device) {
  std::set<ActivityType> kinds{ActivityType::CPU};
  if (device.is_cuda()) kinds.insert(ActivityType::CUDA);
  const ProfilerConfig config(ProfilerState::KINETO);
  profiler::prepareProfiler(config, kinds);
  profiler::enableProfiler(config, kinds);
}

Trace::~Trace() {
  try {
    synchronize(device_);
    const auto result = profiler::disableProfiler();
    std::filesystem::create_directories(file_.parent_path());
    result->save(file_.string());
  } catch (const std::exception& e) {
    log::warning(str("no trace in ", file_.string(), ": ", e.what()));
  }
}

}  // namespace atelier::pipeline
