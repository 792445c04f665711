// atelier tune-batch: the largest batch that fits, found by drawing.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/batch_search.h"
#include "app/run/time_layout.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace atelier::app {
namespace {

constexpr int64_t kMost = 64;

// One round of a batch of this size, uncounted rounds left out; what stops it, if it does not fit.
Tried draw(Resolved resolved, const Environment& variables, const Interrupt& interrupt, int64_t size) {
  resolved.settings.input.batch_size = static_cast<int>(size);
  resolved.settings.output.quiet = true;
  if (!resolved.is_set("num_iterations")) {
    resolved.settings.output.num_iterations = 1;
    resolved.origins["num_iterations"] = {Precedence::kFlag, "tune-batch"};
  }
  if (!resolved.is_set("warmup_calls")) {
    resolved.settings.output.warmup_calls = 1;
    resolved.origins["warmup_calls"] = {Precedence::kFlag, "tune-batch"};
  }
  try {
    const Json row = time_layout(resolved, variables, interrupt, resolved.settings.output.output_dir);
    if (row.contains("problem")) return {.reason = row["problem"].get<std::string>()};
    return {.fits = true, .pictures_per_second = row["pictures_per_second"].get<double>()};
  } catch (const Error& e) {
    if (e.kind() != Kind::kCapacity) throw;
    return {.reason = e.what()};
  }
}

}  // namespace

int tune_batch_command(const Arguments& arguments) {
  const FlagSet set{
      .surface = kBoth,
      .name = "tune-batch",
      .about =
          "Draws with larger and larger batches and prints the largest that fits, with what stopped the "
          "next one and how many pictures per second each drew. --most N ends the search (64). Sizes "
          "count the pictures of all groups, as --batch_size does.",
      .unused = {"resume", "keep_changed", "save_dummy", "span_nodes", "num_nodes", "node_rank",
                 "master_addr", "master_port", "output_name_column", "batch_size"},
      .why = "it looks for the batch size by drawing, on this machine",
      .values = {{"most", "the largest batch that is tried (64)"}}};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const auto variables = environment();
  const Resolved resolved = resolve(kRun, parsed.flags, variables, parsed.config);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  int64_t most = kMost;
  if (const auto given = parsed.values.find("most"); given != parsed.values.end()) {
    const auto n = to_integer(given->second);
    if (!n || *n < 1) throw Error(Kind::kUsage, "--most: a batch size of at least 1 is needed");
    most = *n;
  }
  const Interrupt interrupt;
  const auto found = largest_that_fits(most, [&](int64_t size) {
    auto tried = draw(resolved, variables, interrupt, size);
    std::cout << "batch " << size << ": "
              << (tried.fits ? str(tried.pictures_per_second, " pictures per second")
                             : "does not fit: " + tried.reason)
              << std::endl;
    return tried;
  });
  if (found.size == 0) throw Error(Kind::kCapacity, "not even one picture fits: " + found.next.reason);
  std::cout << "largest batch that fits: " << found.size
            << (found.next.reason.empty() ? " (larger ones were not tried: --most)"
                                          : str("; ", found.size + 1, " does not: ", found.next.reason))
            << "\n";
  if (found.fastest != found.size) std::cout << "fastest: " << found.fastest << "\n";
  return 0;
}

}  // namespace atelier::app
