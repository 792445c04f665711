// atelier bench: timings of layouts on workers that stay loaded.
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/interrupt.h"
#include "app/run/run_spec.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/version.h"
#include "plan/parallel_config.h"
#include "report/log_names.h"
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

struct Bench {
  Resolved resolved;
  const Environment& variables;
  const Interrupt& interrupt;

  Json time_layout(const std::filesystem::path& folder) {
    const auto& s = resolved.settings;
    interrupt.begin_drawing();
    auto spec = make_run_spec(resolved,
                              find_model(
                                  resolved, variables, [](const std::string&) {}, interrupt.token()),
                              read_prompts(resolved), 0);
    const bool is_quiet = s.output.quiet;
    for (const auto& line : header(spec, resolved)) {
      log::debug(line);
      if (!is_quiet) std::cout << line << std::endl;
    }
    report::RunReport report(spec.clock);
    for (const auto& note : resolved.notes) report.add_note(note);
    for (const auto& note : spec.requests.notes) report.add_note(note);
    for (const auto& bad : spec.requests.bad) {
      log::error(str(bad.where, ": ", bad.reason));
      report.add_failure(bad.where, bad.reason);
    }
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
};

void print(const Json& row) {
  std::cout << std::left << std::setw(34) << row["layout"].get<std::string>() << std::right;
  if (row.contains("problem")) {
    std::cout << "  " << row["problem"].get<std::string>() << std::endl;
    return;
  }
  const auto number = [&](const char* key, const char* which) { return row[key][which].get<double>(); };
  std::cout << std::fixed << std::setprecision(1) << std::setw(10) << number("ms_per_step", "median")
            << " ms/step (" << number("ms_per_step", "min") << " to " << number("ms_per_step", "max")
            << "), decode " << number("decode_s", "median") * 1e3 << " ms, batch of " << row["batch"]
            << " in " << std::setprecision(3) << number("picture_s", "median") << " s, "
            << row["pictures_per_second"].get<double>() << " pictures per second" << std::endl;
}

}  // namespace

int bench_command(const Arguments& arguments) {
  const FlagSet set{.surface = kBoth,
                    .name = "bench",
                    .about =
                        "Times layouts with workers that stay loaded, a process each. --strategy \"data=1 | "
                        "ulysses=2\" names "
                        "several; --num_iterations rounds count (5), --warmup_calls before them do not (2). "
                        "A round draws every "
                        "prompt, and fills --batch_size and every data group with further seeds. Writes "
                        "bench.json, whose rows "
                        "are run reports, and the pictures of each layout into --output_dir.",
                    .unused = {"resume", "keep_changed", "save_dummy", "span_nodes", "num_nodes", "node_rank",
                               "master_addr", "master_port", "output_name_column"},
                    .why = "it draws every round anew, on this machine"};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const Environment variables = environment();
  auto resolved = resolve(kRun, parsed.flags, variables, parsed.config);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  const auto& output = resolved.settings.output;
  const std::filesystem::path folder = output.output_dir;
  if (!output.log_dir.empty()) {
    const auto stamp = report::log_stamp(std::chrono::system_clock::now());
    log::add_file(report::log_folder(output.log_dir, output.output_dir, stamp) / report::log_file_name({}));
  }
  const Interrupt interrupt;
  Json out{{"atelier", kVersion}, {"arguments", arguments}, {"rows", Json::array()}};
  int failed = 0;
  const auto layouts = plan::split_strategies(resolved.settings.backend.strategy);
  for (const auto& layout : layouts) {
    resolved.settings.backend.strategy = layout;
    Json row;
    try {
      row = Bench{resolved, variables, interrupt}.time_layout(folder);
    } catch (const Error& e) {
      if (layouts.size() == 1 || e.kind() == Kind::kInterrupted) throw;
      row = {{"layout", layout}, {"problem", e.what()}};
    }
    if (!output.quiet) print(row);
    failed += row.contains("problem");
    out["rows"].push_back(std::move(row));
    std::filesystem::create_directories(folder);
    write_json(folder / "bench.json", out);
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace atelier::app
