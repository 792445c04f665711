// What the engine's tests share: the small recorded model, copies of it to damage, and its pictures.
#pragma once
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>

#include "base/json.h"
#include "base/testing.h"
#include "comm/comm.h"
#include "nn/testing.h"
#include "parallel/parallel_context.h"
#include "pipeline/model_repo.h"
#include "pipeline/pipeline.h"
#include "weights/tensors.h"

namespace atelier::pipeline {

// The recorded pipeline that the tests draw with. Tests run in the root of the
// repository.
inline const std::filesystem::path kGolden = "tests/goldens/flux_dev";

// A copy that lasts as long as the object.
class Copy {
 public:
  explicit Copy(const std::filesystem::path& folder) {
    std::filesystem::copy(folder, path(), std::filesystem::copy_options::recursive);
  }
  const std::filesystem::path& path() const { return folder_.path(); }

  void edit_json(const std::string& file, const std::function<void(Json&)>& change) const {
    Json j = read_json(path() / file);
    change(j);
    write_json(path() / file, j);
  }
  void edit_tensors(const std::string& file, const std::function<void(weights::Tensors&)>& change) const {
    auto tensors = weights::read_tensors(path() / file);
    change(tensors);
    weights::write_tensors(path() / file, tensors, {{"format", "pt"}});
  }

 private:
  TemporaryFolder folder_;
};

inline const media::Image& image_of(const media::Artifact& artifact) {
  return std::get<media::Image>(artifact);
}

// The recorded model on one rank of the CPU, ready to draw.
class SmallModel {
 public:
  explicit SmallModel(const LoadOptions& load = {}, const std::filesystem::path& folder = kGolden / "model")
      : folder_(ModelRepo::open(folder)),
        plan_(plan::plan_for({}, folder_.facts())),
        parallel_context_(plan_, nullptr, nn::SdpaBackend::kAuto),
        pipeline_(folder_, parallel_context_, plan_.chunks, load) {}
  Pipeline& pipeline() { return pipeline_; }
  std::vector<media::Image> generate(request::Requests batch, const StepCallbacks& callbacks = {}) {
    std::vector<media::Image> out;
    for (auto& a : pipeline_.generate(batch, callbacks)) out.push_back(std::get<media::Image>(std::move(a)));
    return out;
  }
  // The tensor of this name that drawing passes by.
  at::Tensor probed(request::Requests batch, const std::string& name) {
    ActivationRecorder probes;
    pipeline_.generate(batch, {.probes = &probes});
    return probes.tensors().at(name);
  }

 private:
  ModelRepo folder_;
  plan::Plan plan_;
  parallel::ParallelContext parallel_context_;
  Pipeline pipeline_;
};

// Runs `work` on a thread per rank of the layout, each with its part of the model; what any of them throws
// fails the test.
inline void on_ranks(const ModelRepo& model, const plan::ParallelConfig& layout, const LoadOptions& load,
                     const std::function<void(Pipeline&, int rank)>& work) {
  const auto plan = plan::plan_for(layout, model.facts());
  const int world = plan::world_size(layout);
  auto transports = comm::connect_local(world, {.timeout = std::chrono::seconds(20)});
  std::vector<std::jthread> threads;
  for (auto& transport : transports) {
    threads.emplace_back([&, t = world > 1 ? transport.get() : nullptr, rank = transport->rank()] {
      try {
        parallel::ParallelContext parallel_context(plan, t, nn::SdpaBackend::kAuto);
        Pipeline pipeline(model, parallel_context, plan.chunks, load);
        work(pipeline, rank);
      } catch (const std::exception& e) {
        ADD_FAILURE() << "rank " << rank << ": " << e.what();
        if (t) t->abort();
      }
    });
  }
}

inline std::vector<request::Request> request_for(const std::vector<std::string>& prompts,
                                                 const std::vector<uint64_t>& seeds) {
  std::vector<request::Request> batch;
  for (size_t i = 0; i < prompts.size(); ++i) {
    auto& r = batch.emplace_back();
    r.prompt = prompts[i], r.seed = seeds[i];
    r.height = 32, r.width = 48, r.num_inference_steps = 3;
    r.guidance_scale = 3.5;
    r.max_sequence_length = 16;
  }
  return batch;
}

}  // namespace atelier::pipeline
