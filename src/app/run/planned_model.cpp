#include "app/run/planned_model.h"

#include <nlohmann/json.hpp>

#include "app/run/plan_query.h"
#include "base/error.h"
#include "pipeline/device.h"
#include "pipeline/model_work.h"
#include "plan/planner.h"

namespace atelier::app {
namespace {

RunSpec spec_of(const Resolved& resolved, const Environment& variables) {
  auto model = find_model(resolved, variables, [](const std::string&) {}, {});
  auto facts = model.folder.check();
  auto work = pipeline::model_work(model.folder);
  return {.model = std::move(model), .facts = std::move(facts), .work = std::move(work)};
}

}  // namespace

Resolved with(const Resolved& resolved, const Variant& variant) {
  Resolved out = resolved;
  const auto set = [&](const char* name) { out.origins[name] = {Precedence::kFlag, str("--", name)}; };
  auto& request = out.settings.input.row.request;
  if (variant.height > 0) request.height = variant.height, set("height");
  if (variant.width > 0) request.width = variant.width, set("width");
  out.settings.input.batch_size = variant.batch;
  set("batch_size");
  return out;
}

PlannedModel::PlannedModel(Resolved resolved, const Environment& variables)
    : resolved_(std::move(resolved)), spec_(spec_of(resolved_, variables)) {
  spec_.device = choose_device(resolved_.settings.device.device, pipeline::cuda_devices());
}

RequestSet PlannedModel::requests(const Variant& variant) const {
  const auto resolved = with(resolved_, variant);
  auto out = make_requests(resolved, spec_.model.folder, read_prompts(resolved), ".png");
  if (out.requests.empty()) throw Error(Kind::kUsage, "nothing to draw: no row can be drawn");
  return out;
}

plan::LayoutQuery PlannedModel::layout_query(const Variant& variant) const {
  auto work = requests(variant).extent.work;
  work.batch = variant.batch;
  return {spec_.facts, work};
}

pipeline::EngineConfig PlannedModel::ask(const Variant& variant, c10::DeviceType device) {
  spec_.requests = requests(variant);
  spec_.device.device = c10::Device(device);
  return engine_config(resolved_, spec_);
}

Json PlannedModel::predicted(const Variant& variant, const plan::ParallelConfig& degrees,
                             const plan::Hardware& hardware) {
  if (spec_.work.blocks.empty()) return nullptr;
  const auto engine = ask(variant, c10::kCUDA);
  const auto query =
      plan_query(spec_.model.folder, spec_.facts, spec_.work, spec_.requests, engine, hardware);
  const auto p = plan::predict(query, degrees);
  Json out{{"kind", "modelled"},
           {"hardware", hardware.name},
           {"links", hardware.links.name},
           {"source", hardware.source},
           {"fits", p.fits},
           {"ms_per_step", 1e3 * p.step.seconds()},
           {"picture_s", p.picture_s},
           {"weight_bytes", Json::array()},
           {"peak_bytes", Json::array()}};
  for (int group = 0; group < degrees.data; ++group) {
    for (const auto& rank : p.ranks) {
      out["weight_bytes"].push_back(rank.weights());
      out["peak_bytes"].push_back(rank.total());
    }
  }
  return out;
}

Json PlannedModel::counted(const Variant& variant, const plan::ParallelConfig& degrees) {
  if (spec_.work.blocks.empty()) return nullptr;
  const auto engine = ask(variant, c10::kCPU);
  const auto& extent = spec_.requests.extent;
  const auto memory =
      memory_query(spec_.model.folder, spec_.facts, engine, false, extent.height, extent.width);
  Json out{{"kind", "modelled"}, {"weight_bytes", Json::array()}};
  for (int group = 0; group < degrees.data; ++group) {
    for (const auto& rank : plan::rank_memory({{spec_.facts, extent.work}, spec_.work}, memory, degrees))
      out["weight_bytes"].push_back(rank.weights());
  }
  return out;
}

}  // namespace atelier::app
