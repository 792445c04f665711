// atelier bench: timings of layouts with a model that stays loaded.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/run_spec.h"
#include "base/error.h"
#include "base/files.h"
#include "base/version.h"
#include "pipeline/device.h"
#include "plan/parallel_config.h"
#include "verify/bench.h"

namespace atelier::app {
namespace {

constexpr int kRuns = 5, kWarmups = 2;

verify::BenchOptions options_of(const Resolved& resolved, const RunSpec& spec) {
  auto batch = spec.requests.requests;
  fill_seeds(batch, resolved.settings.input.row.request.seed.value_or(0));
  const auto most = static_cast<size_t>(resolved.settings.input.batch_size);
  if (batch.size() > most) batch.resize(most);
  if (batch.empty()) throw Error(Kind::kUsage, "nothing to draw: " + spec.requests.bad.front().reason);
  verify::BenchOptions o;
  o.batch = std::move(batch);
  o.load = pipeline::load_options(spec.job.engine, spec.device.device);
  const auto& output = resolved.settings.output;
  o.runs = resolved.is_set("num_iterations") ? output.num_iterations : kRuns;
  o.warmups = resolved.is_set("warmup_calls") ? output.warmup_calls : kWarmups;
  return o;
}

Json time_layout(Resolved resolved, const plan::ParallelConfig& layout, const Environment& variables) {
  resolved.settings.backend.strategy = plan::to_string(layout);
  auto spec = make_run_spec(resolved, find_model(resolved, variables, [](const std::string&) {}, {}),
                            read_prompts(resolved), 0);
  pipeline::set_tf32(spec.job.engine.tf32 ? pipeline::Tf32::kOn : pipeline::Tf32::kOff);
  auto row = verify::bench_layout(spec.model.folder, plan::to_string(spec.layout.degrees),
                                  options_of(resolved, spec));
  row["dtype"] = spec.job.engine.precision.denoiser;
  row["tf32"] = spec.job.engine.tf32;
  return row;
}

void print(const Json& row) {
  std::cout << std::left << std::setw(34) << row["layout"].get<std::string>() << std::right;
  if (row.contains("problem")) {
    std::cout << "  " << row["problem"].get<std::string>() << std::endl;
    return;
  }
  const auto median = [&](const char* key) { return row[key]["median"].get<double>(); };
  std::cout << std::fixed << std::setprecision(1) << std::setw(10) << median("ms_per_step") << " ms/step ("
            << row["ms_per_step"]["min"].get<double>() << " to " << row["ms_per_step"]["max"].get<double>()
            << "), decode " << median("decode_s") * 1e3 << " ms, picture " << std::setprecision(2)
            << median("picture_s") << " s" << std::endl;
}

}  // namespace

int bench_command(const Arguments& arguments) {
  const FlagSet set{
      kBoth,
      "bench",
      "Times layouts with a loaded model; ranks are threads. --strategy \"data=1 | ulysses=2\" names "
      "several; --num_iterations runs count (5), --warmup_calls before them do not (2). Writes "
      "bench.json into --output_dir.",
      {}};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const Environment variables = environment();
  auto resolved = resolve(kRun, parsed.flags, variables, parsed.config);
  auto& prompts = resolved.settings.input.texts["prompt"];
  if (prompts.empty()) prompts = {"a fox in the snow"};
  Json out{{"atelier", kVersion}, {"arguments", arguments}, {"rows", Json::array()}};
  int failed = 0;
  for (const auto& layout : plan::parse_strategies(resolved.settings.backend.strategy)) {
    const Json row = time_layout(resolved, layout, variables);
    print(row);
    failed += row.contains("problem");
    out["rows"].push_back(row);
    const std::filesystem::path folder = resolved.settings.output.output_dir;
    std::filesystem::create_directories(folder);
    write_json(folder / "bench.json", out);
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace atelier::app
