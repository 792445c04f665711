#include "cluster/model_runner.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "nn/sdpa.h"
#include "pipeline/device.h"
#include "pipeline/pipeline_route.h"
#include "report/clock.h"
#include "report/run_report.h"
#include "request/settings.h"

namespace atelier::cluster {
namespace {

nn::SdpaBackend backend_named(const std::string& name) {
  if (name == "auto") return nn::SdpaBackend::kAuto;
  if (name == "cudnn") return nn::SdpaBackend::kCudnn;
  if (name == "flash") return nn::SdpaBackend::kFlash;
  if (name == "efficient") return nn::SdpaBackend::kEfficient;
  if (name == "math") return nn::SdpaBackend::kMath;
  throw Error(Kind::kUsage,
              str("unknown attention kernel ", name, "; known are auto, cudnn, flash, efficient, math"));
}

// What every picture of the run says about itself besides its item's own settings.
Json run_settings(const Job& job, const pipeline::ModelRepo& folder) {
  Json settings{{"model", folder.label()},
                {"scheduler", folder.scheduler().value("_class_name", std::string())},
                {"dtype", job.denoiser_dtype},
                {"max_sequence_length", job.max_sequence_length}};
  if (job.true_cfg > 1) settings["true_cfg_scale"] = job.true_cfg;
  return settings;
}

}  // namespace

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
  Json settings;
  std::vector<plan::ModelChunk> route;
  parallel::ParallelContext parallel_context;
  pipeline::Pipeline pipeline;
  std::optional<jobs::OutputFolder> output;  // where this rank writes

  Parts(const Job& j, c10::Device d, comm::Transport* transport)
      : job(j),
        device(d),
        folder(open_model(j.model)),
        settings(run_settings(j, folder)),
        route(pipeline::pipeline_route(j.degrees, j.stage_blocks, folder.family().facts(folder.denoiser()))),
        parallel_context(j.degrees, transport, route, backend_named(j.attention)),
        pipeline(folder, parallel_context, route, load_options(j, d)) {}
};

ModelRunner::ModelRunner(const Job& job, c10::Device device, comm::Transport* transport) {
  pipeline::use_device(device);
  pipeline::set_tf32(job.tf32 ? pipeline::Tf32::kOn : pipeline::Tf32::kOff);
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
  if (leads()) parts_->output.emplace(job.output);
}

ModelRunner::~ModelRunner() = default;

std::vector<media::Image> ModelRunner::generate(const jobs::Batch& batch,
                                                const pipeline::StepCallbacks& callbacks) {
  auto& p = *parts_;
  const auto request = request_of(p.job, batch.items);
  for (int tries = is_alone() ? 2 : 1;; --tries) {
    try {
      return p.pipeline.generate(request, callbacks);
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      if (!pipeline::is_out_of_memory(e)) throw;
      if (tries == 1) {
        throw Error(
            Kind::kCapacity,
            str(request.prompts.size(), " of ", request.width, "x", request.height,
                " at once do not fit in the memory of ", pipeline::device_name(p.device),
                p.device.is_cuda() ? "; make the batch or the pictures smaller, or try --enable_tiling: " +
                                         pipeline::reason_of(e)
                                   : "; make the batch or the pictures smaller, or try --enable_tiling"));
      }
    }
    // here, where the exception and what it kept alive are gone
    pipeline::empty_cache(p.device);
  }
}

int64_t ModelRunner::write(const request::Item& item, const media::Image& picture) const {
  const auto& p = *parts_;
  const auto metadata = media::describe(request::item_settings(item, p.settings));
  const auto format = media::format_of(item.name).value_or(p.job.format);
  const std::string bytes = media::encode(picture, format, p.job.quality, metadata);
  parts_->output->write(item.name, bytes);
  return static_cast<int64_t>(bytes.size());
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
  s.step_ms = p.pipeline.timing().step_ms;
  s.used = p.pipeline.used();
  return s;
}

}  // namespace atelier::cluster
