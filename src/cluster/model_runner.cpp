#include "cluster/model_runner.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "nn/tuned_product.h"
#include "pipeline/device.h"
#include "pipeline/tier.h"
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

struct ModelRunner::LoadedModel {
  c10::Device device;
  nn::TunedProducts products;
  pipeline::ModelRepo folder;
  plan::Plan plan;
  parallel::ParallelContext parallel_context;
  pipeline::Pipeline pipeline;
  BatchTimes times;  // of the last batch

  LoadedModel(const pipeline::EngineConfig& config, c10::Device d, comm::Transport* transport)
      : device(d),
        products(config.gemm_cache.empty() ? c10::Device(c10::kCPU) : d, config.gemm_cache),
        folder(open_model(config.model)),
        plan(plan::plan_for(config.layout, folder.facts())),
        parallel_context(plan, transport, load_options(config, d).attention),
        pipeline(folder, parallel_context, plan.chunks, load_options(config, d)) {}
  bool is_alone() const { return !parallel_context.replica(); }
};

ModelRunner::ModelRunner(const pipeline::EngineConfig& config, c10::Device device,
                         comm::Transport* transport) {
  pipeline::use_device(device);
  pipeline::set_tf32(config.tf32 ? pipeline::Tf32::kOn : pipeline::Tf32::kOff);
  pipeline::cap_memory(device, config.memory_fraction);
  pipeline::reset_peak(device);
  fraction_ = config.memory_fraction;
  settles_after_ = config.settles_after;
  try {
    parts_ = std::make_unique<LoadedModel>(config, device, transport);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    if (!pipeline::is_out_of_memory(e)) throw;
    throw Error(Kind::kCapacity,
                str("the model does not fit in the memory of ", pipeline::device_name(device), under_cap(),
                    ": ", pipeline::reason_of(e)));
  }
}

ModelRunner::~ModelRunner() = default;

std::string ModelRunner::under_cap() const {
  if (fraction_ >= 1) return {};
  return str(" under gpu_memory_fraction ", fraction_,
             " (raise it, spread the model over more GPUs, or draw less at once)");
}

// Where memory does not suffice for the only rank, once more with an empty cache; then Error(kCapacity)
// with the advice.
template <class Work, class Advice>
auto ModelRunner::with_room(const Work& work, const Advice& advice) {
  auto& p = *parts_;
  const nn::ProductTuner::Busy under_way(p.products.tuner());
  for (int tries = p.is_alone() ? 2 : 1;; --tries) {
    try {
      return work();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& e) {
      if (!pipeline::is_out_of_memory(e)) throw;
      if (tries == 1) {
        throw Error(Kind::kCapacity, str(advice(str(pipeline::device_name(p.device), under_cap())),
                                         p.device.is_cuda() ? ": " + pipeline::reason_of(e) : ""));
      }
    }
    // here, where the exception and what it kept alive are gone
    pipeline::empty_cache(p.device);
  }
}

std::vector<media::Artifact> ModelRunner::generate(request::Requests requests,
                                                   const pipeline::StepCallbacks& callbacks) {
  auto& p = *parts_;
  const auto before = p.pipeline.timing().seconds;
  auto made = with_room(
      [&] {
        auto artifacts = p.pipeline.generate(requests, callbacks);
        tell_of_kernels();
        const auto& timing = p.pipeline.timing();
        p.times = {timing.seconds, timing.step_ms, timing.reread_bytes, timing.cache.computed,
                   timing.cache.reused};
        for (const auto& [phase, seconds] : before) p.times.seconds[phase] -= seconds;
        p.times.seconds.erase("load");
        return artifacts;
      },
      [&](const std::string& device) {
        const auto& first = requests.front();
        return str(requests.size(), " of ", first.width.value_or(0), "x", first.height.value_or(0),
                   " at once do not fit in the memory of ", device,
                   "; make the batch or the pictures smaller, or try enable_vae_tiling");
      });
  const bool is_last = settles_after_ == 1;
  if (settles_after_ > 0) --settles_after_;
  if (is_last) settle();
  return made;
}

// Timings begin with what later pictures are computed by.
void ModelRunner::settle() {
  constexpr std::chrono::seconds kPatience{20};
  if (const auto* tuner = parts_->products.tuner()) tuner->wait_settled(kPatience);
}

std::vector<int64_t> ModelRunner::answer(const TensorCall& call, const pipeline::StepCallbacks& callbacks) {
  auto& pipeline = parts_->pipeline;
  std::optional<MappedTensors> memory;
  pipeline::DenoiserCall given{.adapters = call.adapters, .expert = call.expert};
  try {
    memory.emplace(call.memory);
    given.latents = memory->view(call.latents);
    if (call.action == "predict") given.timesteps = memory->view(call.timesteps);
    for (const auto& [name, ref] : call.inputs) given.inputs[name] = memory->view(ref);
  } catch (const Error& e) {
    throw pipeline::RequestError(e.kind(), e.what());
  }
  const auto result = with_room(
      [&] {
        return call.action == "decode" ? pipeline.decode(given.latents, callbacks)
                                       : pipeline.predict(given, callbacks);
      },
      [&](const std::string& device) {
        return atelier::str("latents of ", given.latents.sizes(), " do not fit in the memory of ", device,
                            "; make the batch or the picture smaller");
      });
  tell_of_kernels();
  if (!leads()) return {};
  TensorRef place{"float32", result.sizes().vec(), call.result};
  if (place.bytes() > call.result_bytes)
    throw pipeline::RequestError(
        Kind::kUsage, str("the result has ", place.bytes(), " bytes, there is room for ", call.result_bytes));
  memory->view(place).copy_(result);
  return place.shape;
}

void ModelRunner::tell_of_kernels() {
  const auto why = pipeline::flash3_failure();
  if (why.empty() || std::exchange(has_told_, true)) return;
  log::warning(str("FlashAttention 3 failed, so another kernel takes its place: ", why));
}

bool ModelRunner::leads() const {
  return parts_->is_alone() || parts_->parallel_context.replica()->rank() == 0;
}

BatchTimes ModelRunner::times() const {
  return parts_->times;
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
  s.device = p.device.is_cuda() ? str(pipeline::device_name(p.device), " (", p.device.str(), ")")
                                : pipeline::device_name(p.device);
  s.weight_bytes = p.pipeline.weight_bytes();
  s.peak_device_bytes = pipeline::peak_bytes(p.device);
  s.peak_reserved_bytes = pipeline::peak_reserved_bytes(p.device);
  s.peak_host_bytes = report::peak_host_bytes();
  s.samples = p.pipeline.samples();
  s.host_bytes = report::anonymous_host_bytes();
  s.seconds = p.pipeline.timing().seconds;
  s.used = p.pipeline.used();
  if (const auto* tuner = p.products.tuner(); tuner != nullptr && tuner->used() > 0)
    s.used.insert(
        str("products: the fastest of the library's algorithms, measured, for ", tuner->used(), " sizes"));
  return s;
}

}  // namespace atelier::cluster
