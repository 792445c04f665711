// atelier bench: timings of layouts on workers that stay loaded.
#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/interrupt.h"
#include "app/run/plan_query.h"
#include "app/run/protocol_run.h"
#include "app/run/time_layout.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/quote.h"
#include "base/text.h"
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

// What a change of the layout is worth: of rows for which `without` returns true, after it has taken the
// change back, against the row that differs in nothing else.
Json ratios(const Json& rows, bool (*without)(plan::ParallelConfig&)) {
  Json out = Json::array();
  for (const auto& row : rows) {
    if (row.contains("problem")) continue;
    auto degrees = plan::parse_strategy(row["layout"].get<std::string>());
    if (!without(degrees)) continue;
    for (const auto& other : rows) {
      if (other.contains("problem") || other["layout"] != plan::to_string(degrees)) continue;
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

// Giving each branch its own ranks.
bool without_guidance(plan::ParallelConfig& d) {
  return std::exchange(d.cfg, 1) == 2;
}

// Messages that travel while ranks compute. In the layout's text this is the default.
bool without_overlap(plan::ParallelConfig& d) {
  return std::exchange(d.overlap, false) && plan::world_size(d) > 1;
}

void print_ratios(const Json& ratios) {
  for (const auto& ratio : ratios) {
    std::cout << ratio["layout"].get<std::string>() << " against " << ratio["against"].get<std::string>()
              << ": denoising " << ratio["denoise"]["value"].get<double>()
              << " times as fast, prompt to picture " << ratio["end_to_end"]["value"].get<double>()
              << " times" << std::endl;
  }
}

bool has_protocol(const Arguments& arguments) {
  return std::any_of(arguments.begin(), arguments.end(),
                     [](const std::string& a) { return a == "--protocol" || a.starts_with("--protocol="); });
}

// "1024,2048" as numbers above 0.
std::vector<int> numbers_of(const Parsed& parsed, const std::string& flag) {
  std::vector<int> out;
  const auto given = parsed.values.find(flag);
  if (given == parsed.values.end()) return out;
  for (const auto& word : words_of(given->second)) {
    const auto n = to_integer(word);
    if (!n || *n < 1 || *n > 65536)
      throw Error(Kind::kUsage, str("--", flag, " ", given->second,
                                    ": numbers above 0 with commas between them are needed"));
    out.push_back(static_cast<int>(*n));
  }
  return out;
}

const FlagSet kProtocol{
    .surface = kBoth,
    .name = "bench --protocol NAME",
    .about =
        "Runs a benchmark protocol and writes a page. --protocol flux: one GPU, scaling over 2, 4 and 8, "
        "strategies, "
        "memory, messages, quality against one GPU, sizes, batches, throughput with storing, seven success "
        "criteria; "
        "--protocol throughput: its last two parts. GPUs that are not here are listed as not measured, with "
        "what the "
        "planner expects. Into --output_dir: report.html, .md and .csv, charts, heat maps, bench.json, and "
        "progress.md, "
        "which is rewritten while it runs. A run that was interrupted goes on where it was (--no_resume "
        "begins anew). "
        "--num_gpus N uses N only, on the CPU N ranks (2). --sizes 1024,2048 and --batches 1,2 replace the "
        "usual ones; "
        "--hardware NAME is what GPUs that are not here are modelled as. Rounds: --num_iterations (20; 3 on "
        "the CPU) "
        "after --warmup_calls (2; 1). Exit code 1 where something failed or an exact layout drew another "
        "picture.",
    .unused = {"keep_changed",
               "save_dummy",
               "span_nodes",
               "num_nodes",
               "node_rank",
               "master_addr",
               "master_port",
               "output_name_column",
               "strategy",
               "data_parallel_degree",
               "ulysses_degree",
               "kv_gather_degree",
               "ring_degree",
               "pipefusion_degree",
               "pipeline_parallel_size",
               "use_cfg_parallel",
               "tensor_parallel_degree",
               "overlap_p2p_comm",
               "batch_size",
               "profile",
               "profile_wait",
               "profile_warmup",
               "profile_active",
               "debug",
               "log_dir",
               "cache_type",
               "cache_threshold",
               "use_teacache",
               "use_fbcache"},
    .why = "a protocol says itself what is measured",
    .values = {{"protocol", "flux or throughput: what is measured"},
               {"sizes", "sides of pictures in place of the usual ones: 1024,2048"},
               {"batches", "sizes of batches in place of the usual ones: 1,2"},
               {"hardware", "what GPUs that are not here are modelled as (H200)"}}};

std::optional<plan::Hardware> hardware_asked(const Parsed& parsed) {
  const auto name = parsed.values.find("hardware");
  if (name == parsed.values.end()) return std::nullopt;
  return hardware_named(name->second);
}

int protocol_command(const Arguments& arguments) {
  const Parsed parsed = parse_flags(kProtocol, arguments);
  if (parsed.is_help) return 0;
  const Environment variables = environment();
  const auto resolved = resolve(kRun, parsed.flags, variables, parsed.config);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  std::string command = "atelier bench";
  for (const auto& a : arguments) command += " " + shell_word(a);
  return run_protocol(resolved, variables,
                      {.name = parsed.values.at("protocol"),
                       .sizes = numbers_of(parsed, "sizes"),
                       .batches = numbers_of(parsed, "batches"),
                       .hardware = hardware_asked(parsed),
                       .command = command});
}

}  // namespace

int bench_command(const Arguments& arguments) {
  if (has_protocol(arguments)) return protocol_command(arguments);
  const FlagSet set{
      .surface = kBoth,
      .name = "bench",
      .about =
          "Times layouts with workers that stay loaded, a process each. --strategy \"data=1 | "
          "ulysses=2\" names "
          "several; --num_iterations rounds count (5), --warmup_calls before them do not (2). "
          "A round draws every "
          "prompt, and fills --batch_size and every data group with further seeds. Writes "
          "bench.json, whose rows "
          "are run reports, and the pictures of each layout into --output_dir. --protocol flux runs a "
          "whole benchmark instead: scaling, strategies, memory, messages, quality, sizes, batches and "
          "throughput, as a page with charts; --protocol throughput its last part (bench --protocol "
          "flux --help).",
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
  out["guidance_ratios"] = ratios(out["rows"], without_guidance);
  out["overlap_ratios"] = ratios(out["rows"], without_overlap);
  if (!layouts.empty()) write_json(folder / "bench.json", out);
  if (!output.quiet) {
    for (const char* kind : {"guidance_ratios", "overlap_ratios"}) print_ratios(out[kind]);
  }
  return failed == 0 ? 0 : 1;
}

}  // namespace atelier::app
