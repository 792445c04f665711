#include "cluster/model_runner.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <optional>

#include "base/digest.h"
#include "base/error.h"
#include "pipeline/device.h"
#include "report/clock.h"
#include "report/run_report.h"

namespace atelier::cluster {

c10::Device device_named(const std::string& name, int number) {
  if (name == "cpu") return c10::kCPU;
  if (name == "cuda") return {c10::kCUDA, static_cast<c10::DeviceIndex>(number)};
  try {
    const c10::Device device(name);
    if (device.is_cuda()) return device;
  } catch (const c10::Error&) {
  }
  throw Error(Kind::kUsage, str("unknown device ", name, "; known are cpu, cuda and cuda:N"));
}

struct ModelRunner::Parts {
  Job job;
  c10::Device device;
  report::Stopwatch loading;
  pipeline::ModelRepo folder;
  std::vector<plan::ModelChunk> route;
  parallel::ParallelContext parallel_context;
  pipeline::Pipeline pipeline;
  std::optional<jobs::OutputFolder> output;  // where this rank writes
  BatchTimes times;                          // of the last batch

  Parts(const Job& j, c10::Device d, comm::Transport* transport)
      : job(j),
        device(d),
        folder(open_model(j.engine.model)),
        route(route_of(j.engine, folder)),
        parallel_context(j.engine.layout, transport, route, load_options(j.engine, d).attention),
        pipeline(folder, parallel_context, route, load_options(j.engine, d)) {}
};

ModelRunner::ModelRunner(const Job& job, c10::Device device, comm::Transport* transport) {
  pipeline::use_device(device);
  pipeline::set_tf32(job.engine.tf32 ? pipeline::Tf32::kOn : pipeline::Tf32::kOff);
  pipeline::reset_peak(device);
  try {
    parts_ = std::make_unique<Parts>(job, device, transport);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    if (!pipeline::is_out_of_memory(e)) throw;
    throw Error(Kind::kCapacity, str("the model does not fit in the memory of ",
                                     pipeline::device_name(device), ": ", pipeline::reason_of(e)));
  }
  if (leads()) parts_->output.emplace(job.sink.folder);
}

ModelRunner::~ModelRunner() = default;

std::vector<media::Artifact> ModelRunner::generate(request::Requests batch,
                                                   const pipeline::StepCallbacks& callbacks) {
  auto& p = *parts_;
  const auto before = p.pipeline.timing().seconds;
  for (int tries = is_alone() ? 2 : 1;; --tries) {
    try {
      auto artifacts = p.pipeline.generate(batch, callbacks);
      p.times = {p.pipeline.timing().seconds, p.pipeline.timing().step_ms};
      for (const auto& [phase, seconds] : before) p.times.seconds[phase] -= seconds;
      p.times.seconds.erase("load");
      return artifacts;
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      if (!pipeline::is_out_of_memory(e)) throw;
      if (tries == 1) {
        throw Error(
            Kind::kCapacity,
            str(batch.size(), " of ", batch.front().width.value_or(0), "x", batch.front().height.value_or(0),
                " at once do not fit in the memory of ", pipeline::device_name(p.device),
                p.device.is_cuda() ? "; make the batch or the pictures smaller, or try enable_vae_tiling: " +
                                         pipeline::reason_of(e)
                                   : "; make the batch or the pictures smaller, or try enable_vae_tiling"));
      }
    }
    // here, where the exception and what it kept alive are gone
    pipeline::empty_cache(p.device);
  }
}

jobs::Stored ModelRunner::write(const request::Request& request, const media::Artifact& artifact) const {
  const auto& sink = parts_->job.sink;
  const auto format = media::format_of(request.name).value_or(*media::format_of("." + sink.format));
  const auto metadata = media::describe(request::look(request, sink.record));
  const std::string bytes = media::encode(artifact, format, sink.quality, metadata);
  parts_->output->write(request.name, bytes);
  return {.sha256 = sha256(bytes), .bytes = bytes.size()};
}

BatchTimes ModelRunner::times() const {
  return parts_->times;
}

bool ModelRunner::is_alone() const {
  return !parts_->parallel_context.replica();
}

bool ModelRunner::leads() const {
  const auto* replica = parts_->parallel_context.replica();
  return !replica || replica->rank() == 0;
}

bool ModelRunner::is_device_alive() const {
  try {
    pipeline::synchronize(parts_->device);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

RankStats ModelRunner::stats() const {
  const auto& p = *parts_;
  RankStats s;
  s.rank = p.parallel_context.mesh().rank();
  s.device = p.device.is_cuda() ? str(pipeline::device_name(p.device), " (", p.device.str(), ")")
                                : pipeline::device_name(p.device);
  s.weight_bytes = p.pipeline.weight_bytes();
  s.peak_device_bytes = pipeline::peak_bytes(p.device);
  s.peak_host_bytes = report::peak_host_bytes();
  s.seconds = p.pipeline.timing().seconds;
  s.used = p.pipeline.used();
  return s;
}

}  // namespace atelier::cluster
