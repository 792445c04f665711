#include "app/run/family_rows.h"

#include <array>
#include <nlohmann/json.hpp>

#include "app/run/planned_model.h"
#include "base/error.h"
#include "bench/family_report.h"
#include "plan/layouts.h"
#include "plan/parallel_config.h"

namespace atelier::app {
namespace {

struct FamilyName {
  std::string_view family, prefix, dummy;
  bool is_reported = false;
};
constexpr auto kFamilies = std::to_array<FamilyName>({
    {"flux", "FLUX.1", "FLUX.1-schnell"},
    {"hunyuan_dit", "HunyuanDiT", "HunyuanDiT-v1.2-Diffusers", true},
    {"pixart", "PixArt", "PixArt-Sigma-XL-2-1024-MS"},
    {"sd3", "stable-diffusion-3", "stable-diffusion-3-medium"},
    {"sdxl", "stable-diffusion-xl", "stable-diffusion-xl-base-1.0"},
});

// Those that the report speaks of: single methods, hybrids of them, and the fastest of its lists.
constexpr const char* kLayouts[] = {"data=1",
                                    "cfg=2",
                                    "ulysses=2",
                                    "ring=2",
                                    "pipefusion=2",
                                    "ulysses=4",
                                    "ring=4",
                                    "pipefusion=4",
                                    "cfg=2, ulysses=2",
                                    "cfg=2, pipefusion=2",
                                    "ulysses=8",
                                    "ring=8",
                                    "pipefusion=8",
                                    "cfg=2, ulysses=4",
                                    "cfg=2, pipefusion=4",
                                    "cfg=2, pipefusion=2, ring=2"};
constexpr int kSides[] = {1024, 2048};

const FamilyName& named(const std::string& family) {
  for (const auto& f : kFamilies) {
    if (f.family == family) return f;
  }
  throw Error(Kind::kUsage, str("--family ", family, " is unknown; a page is about ", families_of_report()));
}

bool is_valid(const plan::ParallelConfig& degrees, const plan::LayoutQuery& query) {
  try {
    plan::validate(degrees, query, 0);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

std::string families_of_report() {
  std::string names;
  for (const auto& f : kFamilies) {
    const bool is_last = &f == &kFamilies.back();
    names += str(names.empty() ? "" : is_last ? " or " : ", ", f.family);
  }
  return names;
}

std::string model_prefix(const std::string& family) {
  return std::string(named(family).prefix);
}

bench::FamilyQuery family_query(const std::string& family, const Environment& variables) {
  const auto& f = named(family);
  bench::FamilyQuery out{.family = family, .is_reported = f.is_reported, .hardware = {}, .rows = {}};
  if (!f.is_reported) return out;
  Resolved resolved = resolve(kRun, {{"dummy", "--dummy", {std::string(f.dummy)}}}, variables, {});
  PlannedModel model(resolved, variables);
  for (const auto& machine : bench::reported_machines()) {
    out.hardware.emplace_back(machine.title);
    const auto& hardware = *plan::find_hardware(machine.preset);
    for (const int side : kSides) {
      const Variant variant{side, side, 1};
      for (const auto* text : kLayouts) {
        const auto degrees = plan::parse_strategy(text);
        if (plan::world_size(degrees) > machine.gpus || !is_valid(degrees, model.layout_query(variant)))
          continue;
        const Json p = model.predicted(variant, degrees, hardware);
        if (!p.at("fits").get<bool>()) continue;
        out.rows.push_back({.hardware = std::string(machine.title),
                            .model = std::string(f.dummy),
                            .layout = plan::to_string(degrees),
                            .gpus = plan::world_size(degrees),
                            .side = side,
                            .ms_per_step = p.at("ms_per_step").get<double>(),
                            .source = bench::Basis::kModelled,
                            .from = str("planner; ", hardware.source)});
      }
    }
  }
  return out;
}

}  // namespace atelier::app
