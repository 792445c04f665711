#include "app/run/time_layout.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/run/run_spec.h"
#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "plan/parallel_config.h"
#include "verify/bench.h"

namespace atelier::app {
namespace {

constexpr int kRuns = 5, kWarmups = 2;

// As many pictures as every group draws at once, each with a seed of its own: the given ones, again and again.
std::vector<request::Request> fill(std::vector<request::Request> given, size_t count) {
  const size_t own = given.size();
  for (size_t i = 0; given.size() < count; ++i) {
    auto next = given[i % own];
    const std::filesystem::path name = next.name;
    next.name = str(name.stem().string(), "-", given.size() / own + 1, name.extension().string());
    next.seed = *next.seed + given.size();
    given.push_back(std::move(next));
  }
  return given;
}

RunSpec spec_of(const Resolved& resolved, const Environment& variables, const Interrupt& interrupt) {
  interrupt.begin_drawing();
  auto model = find_model(
      resolved, variables, [](const std::string&) {}, interrupt.token());
  auto spec = make_run_spec(resolved, std::move(model), read_prompts(resolved), 0);
  for (const auto& line : header(spec, resolved)) {
    log::debug(line);
    if (!resolved.settings.output.quiet) std::cout << line << std::endl;
  }
  return spec;
}

void add_remarks(const Resolved& resolved, const RequestSet& pictures, report::RunReport& report) {
  for (const auto& note : resolved.notes) report.add_note(note);
  for (const auto& note : pictures.notes) report.add_note(note);
  for (const auto& bad : pictures.bad) {
    log::error(str(bad.where, ": ", bad.reason));
    report.add_failure(bad.where, bad.reason);
  }
}

}  // namespace

Json time_layout(const Resolved& resolved, const Environment& variables, const Interrupt& interrupt,
                 const std::filesystem::path& folder) {
  const auto& s = resolved.settings;
  auto spec = spec_of(resolved, variables, interrupt);
  report::RunReport report(spec.clock);
  add_remarks(resolved, spec.requests, report);
  auto& requests = spec.requests.requests;
  if (requests.empty()) throw Error(Kind::kUsage, "nothing to draw: no row can be drawn");
  fill_seeds(requests, [] { return uint64_t{0}; });
  const int data = spec.layout.degrees.data, batch = s.input.batch_size;
  requests = fill(std::move(requests), static_cast<size_t>(data * std::max(1, batch / data)));
  const auto layout = plan::to_string(spec.layout.degrees);
  spec.job.sink.folder = folder / layout;
  Json row =
      verify::bench_layout({.job = spec.job,
                            .round = share_out(requests, batch, data),
                            .warmups = resolved.is_set("warmup_calls") ? s.output.warmup_calls : kWarmups,
                            .runs = resolved.is_set("num_iterations") ? s.output.num_iterations : kRuns},
                           report, interrupt.token());
  report.set_settings(to_json(s));
  report.set_version("atelier", kVersion);
  row.update(report.json());
  const auto& first = requests.front();
  row.update({{"model", spec.model.folder.label()},
              {"layout", layout},
              {"height", *first.height},
              {"width", *first.width},
              {"steps", *first.num_inference_steps},
              {"dtype", spec.job.engine.precision.denoiser}});
  return row;
}

}  // namespace atelier::app
