// atelier layouts: every valid layout of a model on a number of ranks.
#include <cmath>
#include <iomanip>
#include <iostream>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/run_spec.h"
#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"

namespace atelier::app {
namespace {

// What decides about layouts: the model, the number of ranks, and the request but for its noise.
std::set<std::string> used() {
  std::set<std::string> names{"model_name", "model_type", "backend",      "revision",     "base_model",
                              "download",   "cache_dir",  "dummy",        "dummy_seed",   "num_gpus",
                              "batch_size", "limit",      "prompts_file", "dataset_path", "transformer_2"};
  request::Request().fields(
      [&](const Field& field, const FieldRef&) { names.insert(std::string(field.name)); });
  names.erase("seed");
  return names;
}

std::set<std::string> all_but_used() {
  std::set<std::string> unused;
  const auto known = used();
  Settings().fields([&](const std::string& section, const Field& field, const FieldRef&) {
    const std::string name(field.name);
    if (section != "unsupported" && !known.contains(name)) unused.insert(name);
  });
  return unused;
}

void print(const plan::LayoutQuery& query, int ranks) {
  const auto chosen = plan::automatic(query, ranks);
  for (const auto& d : plan::layouts(query, ranks)) {
    const int idle = static_cast<int>(std::lround(100 * plan::idle_share(d, query)));
    std::cout << std::left << std::setw(44) << plan::to_string(d) << std::right << std::setw(3) << idle
              << " % idle" << (d == chosen ? "  (taken when only --num_gpus is given)" : "") << "\n";
  }
  std::cout << "idle: of what uneven parts leave; PipeFusion's warm-up, filling and draining come on top; "
               "on GPUs that `atelier plan` knows, its fastest exact layout is taken\n";
}

}  // namespace

int layouts_command(const Arguments& arguments) {
  const FlagSet set{.surface = kBoth,
                    .name = "layouts",
                    .about = "Lists every valid layout of a model on --num_gpus ranks, the least idle first.",
                    .unused = all_but_used(),
                    .why =
                        "it draws nothing and lists the layouts of every degree for a model, a number of "
                        "ranks and a request"};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const auto variables = environment();
  const Resolved resolved = resolve(kT2i, parsed.flags, variables, parsed.config);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  const int ranks = asked_ranks(resolved);
  if (ranks == 0) throw Error(Kind::kUsage, "layouts needs a number of ranks: --num_gpus N");
  const auto& input = resolved.settings.input;
  const bool has_prompts =
      !input.texts_of("prompt").empty() || !input.prompts_file.empty() || !input.dataset_path.empty();
  const auto model = find_model(resolved, variables, [](const std::string&) {}, {});
  const auto pictures =
      make_requests(resolved, model.folder, has_prompts ? read_prompts(resolved) : request::one_prompt("-"),
                    model.folder.draws_videos() ? ".webp" : ".png");
  const plan::LayoutQuery query{model.folder.facts(), pictures.extent.work};
  std::cout << model.name << ", " << pictures.extent.width << "x" << pictures.extent.height << ": "
            << query.work.image_tokens << " tokens and " << query.work.text_tokens << " of text, "
            << query.model.heads << " heads, " << query.model.blocks << " blocks, " << query.work.branches
            << (query.work.branches == 1 ? " branch" : " branches") << "\n";
  for (const auto& note : resolved.notes) std::cout << "note     " << printable(note) << "\n";
  for (const auto& note : pictures.notes) std::cout << "note     " << printable(note) << "\n";
  for (const auto& bad : pictures.bad) log::warning(bad.where + ": " + bad.reason);
  print(query, ranks);
  return 0;
}

}  // namespace atelier::app
