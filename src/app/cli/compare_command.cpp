// atelier compare: two results, as a gate against regressions.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "base/error.h"
#include "base/json_problem.h"
#include "bench/compare.h"
#include "bench/result.h"

namespace atelier::app {
namespace {

std::vector<bench::Entry> read_entries(const std::filesystem::path& given) {
  const auto file = std::filesystem::is_directory(given) ? given / bench::kResultName : given;
  const Json result = read_json(file);
  try {
    return bench::entries_of(result, file.string());
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(file.string(), " has another form than a result: ", json_problem(e)));
  }
}

}  // namespace

int compare_command(const Arguments& arguments) {
  CLI::App app(
      "Holds the second result against the first: a bench.json, a folder with one, or a file of results/. A "
      "number is "
      "worse when it changed by more than --tolerance and by more than the noise of either run, which is "
      "half the way from "
      "its least to its 90th percentile. Exit code 1 where something is worse or gone, 2 where nothing can "
      "be compared.",
      "atelier compare");
  std::string before, after;
  double percent = 5;
  bench::GateRule rule;
  bool is_json = false, shows_all = false;
  app.add_option("before", before, "the result to hold against")->required();
  app.add_option("after", after, "the later result")->required();
  app.add_option("--tolerance", percent, "changes up to so many per cent never count (5)")
      ->check(CLI::Range(0.0, 1000.0));
  app.add_option("--least_runs", rule.least_runs, "fewer runs of either decide nothing (3)")
      ->check(CLI::Range(1, 1000000));
  app.add_flag("--json", is_json, "print everything as JSON");
  app.add_flag("--all", shows_all, "also lines of what is the same");
  if (!parse_arguments(app, arguments)) return 0;
  rule.tolerance = percent / 100;
  const auto all = bench::compare(read_entries(before), read_entries(after), rule);
  const bool is_worse = bench::is_regression(all);
  if (is_json) {
    std::cout << bench::to_json(all, rule).dump(1) << std::endl;
    return is_worse ? 1 : 0;
  }
  std::map<bench::Outcome, int> counts;
  for (const auto& c : all) {
    ++counts[c.outcome];
    if (shows_all || c.outcome != bench::Outcome::kSame) std::cout << bench::line_of(c) << "\n";
  }
  std::cout << all.size() << " compared: " << counts[bench::Outcome::kWorse] << " worse, "
            << counts[bench::Outcome::kGone] << " gone, " << counts[bench::Outcome::kBetter] << " better, "
            << counts[bench::Outcome::kSame] << " the same, " << counts[bench::Outcome::kTooFewRuns]
            << " of too few runs" << std::endl;
  return is_worse ? 1 : 0;
}

}  // namespace atelier::app
