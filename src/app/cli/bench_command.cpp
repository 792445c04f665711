// atelier bench: timings of layouts on workers that stay loaded.
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/interrupt.h"
#include "app/run/time_layout.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/version.h"
#include "plan/parallel_config.h"
#include "report/log_names.h"

namespace atelier::app {
namespace {

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

// What giving each branch its own ranks is worth: of rows with cfg=2, against the row that differs in nothing else.
Json guidance_ratios(const Json& rows) {
  Json out = Json::array();
  for (const auto& row : rows) {
    if (row.contains("problem")) continue;
    auto without = plan::parse_strategy(row["layout"].get<std::string>());
    if (without.cfg != 2) continue;
    without.cfg = 1;
    for (const auto& other : rows) {
      if (other.contains("problem") || other["layout"] != plan::to_string(without)) continue;
      const auto ratio = [&](const char* key) {
        const double mine = row[key]["median"], its = other[key]["median"];
        return Json{{"value", mine > 0 ? its / mine : 0}, {"kind", "measured"}};
      };
      out.push_back({{"layout", row["layout"]},
                     {"against", other["layout"]},
                     {"denoise", ratio("denoise_s")},
                     {"end_to_end", ratio("picture_s")}});
    }
  }
  return out;
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
      row = time_layout(resolved, variables, interrupt, folder);
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
  out["guidance_ratios"] = guidance_ratios(out["rows"]);
  if (!layouts.empty()) write_json(folder / "bench.json", out);
  for (const auto& ratio : out["guidance_ratios"]) {
    if (!output.quiet)
      std::cout << ratio["layout"].get<std::string>() << " against " << ratio["against"].get<std::string>()
                << ": denoising " << ratio["denoise"]["value"].get<double>()
                << " times as fast, prompt to picture " << ratio["end_to_end"]["value"].get<double>()
                << " times" << std::endl;
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace atelier::app
