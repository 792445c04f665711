#include "app/run/time_layout.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/run/batches.h"
#include "app/run/run_spec.h"
#include "app/run/seeds.h"
#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "plan/parallel_config.h"
#include "request/names.h"
#include "verify/bench.h"

namespace atelier::app {
namespace {

constexpr int kRuns = 5, kWarmups = 2;

// As many pictures as every group draws at once, each with a seed of its own: the given ones,
// again and again.
request::RequestList fill(const request::RequestList& given, size_t count) {
  SeedFiller seeds([] { return uint64_t{0}; });
  request::RequestList out;
  for (size_t i = 0; i < std::max(given.size(), count); ++i) {
    auto next = given[i % given.size()];
    seeds.fill(next);
    if (i >= given.size()) {
      next.name = request::numbered_name(next.name, i / given.size() + 1);
      next.seed = *next.seed + i;
    }
    out.push_back(next);
  }
  return out;
}

std::vector<std::vector<request::Request>> round_of(const Batches& batches) {
  std::vector<std::vector<request::Request>> all;
  for (const auto& batch : batches) all.push_back(batch);
  return all;
}

// What a step cache reuses follows from what a model has learned.
void refuse_with_dummy(const FoundModel& model, const std::string& cache_type) {
  if (!model.folder.is_dummy() || cache_type == "none") return;
  throw Error(Kind::kUsage,
              str("cache_type ", cache_type, " with random weights: a time of what they happen to ",
                  "reuse says nothing; take a model that has learned something"));
}

RunSpec spec_of(const Resolved& resolved, const Environment& variables, const Interrupt& interrupt) {
  interrupt.begin_drawing();
  auto model = find_model(
      resolved, variables, [](const std::string&) {}, interrupt.token());
  for (const auto& type : resolved.settings.input.texts_of("cache_type")) refuse_with_dummy(model, type);
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
  if (spec.requests.requests.empty()) throw Error(Kind::kUsage, "nothing to draw: no row can be drawn");
  for (const auto& r : spec.requests.requests) refuse_with_dummy(spec.model, r.cache_type.value_or("none"));
  const int data = spec.layout.degrees.data, batch = s.input.batch_size;
  const auto requests = fill(spec.requests.requests,
                             static_cast<size_t>(data) * static_cast<size_t>(std::max(1, batch / data)));
  const auto layout = plan::to_string(spec.layout.degrees);
  spec.job.sink.folder = folder / layout;
  Json row =
      verify::bench_layout({.job = spec.job,
                            .round = round_of(Batches(requests, batch, data)),
                            .warmups = resolved.is_set("warmup_calls") ? s.output.warmup_calls : kWarmups,
                            .runs = resolved.is_set("num_iterations") ? s.output.num_iterations : kRuns},
                           report, interrupt.token());
  report.set_settings(to_json(s));
  report.set_version("atelier", kVersion);
  row.update(report.json());
  const auto first = requests.front();
  row.update({{"model", spec.model.folder.label()},
              {"layout", layout},
              {"height", *first.height},
              {"width", *first.width},
              {"steps", *first.num_inference_steps},
              {"dtype", spec.job.engine.precision.denoiser}});
  return row;
}

}  // namespace atelier::app
