// atelier layouts: every valid layout of a model on a number of ranks.
#include <cmath>
#include <iomanip>
#include <iostream>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/run_spec.h"
#include "base/error.h"

namespace atelier::app {

int layouts_command(const Arguments& arguments) {
  const FlagSet set{
      kBoth, "layouts", "Lists every valid layout of a model on --num_gpus ranks, the least idle first.", {}};
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const auto variables = environment();
  const Resolved resolved = resolve(kT2i, parsed.flags, variables, parsed.config);
  const std::string& count = resolved.settings.device.num_gpus;
  if (count == "auto") throw Error(Kind::kUsage, "layouts needs a number of ranks: --num_gpus N");
  const auto model = find_model(resolved, variables, [](const std::string&) {}, {});
  auto prompts =
      resolved.settings.input.texts_of("prompt").empty() ? request::one_prompt("-") : read_prompts(resolved);
  const auto pictures = make_requests(resolved, model.folder, std::move(prompts), ".png");
  const plan::Problem problem{model.folder.facts(), pictures.extent.work};
  const int ranks = asked_ranks(resolved);
  const auto chosen = plan::automatic(problem, ranks);
  std::cout << model.name << ", " << pictures.extent.width << "x" << pictures.extent.height << ": "
            << problem.work.image_tokens << " tokens and " << problem.work.text_tokens << " of text, "
            << problem.model.heads << " heads, " << problem.model.blocks << " blocks, "
            << problem.work.branches << (problem.work.branches == 1 ? " branch" : " branches") << "\n";
  for (const auto& d : plan::layouts(problem, ranks)) {
    const int idle = static_cast<int>(std::lround(100 * plan::idle_share(d, problem)));
    std::cout << std::left << std::setw(44) << plan::to_string(d) << std::right << std::setw(3) << idle
              << " % idle" << (d == chosen ? "  (taken when only --num_gpus is given)" : "") << "\n";
  }
  std::cout << "idle: of what uneven parts leave; PipeFusion's warm-up, filling and draining come on top\n";
  return 0;
}

}  // namespace atelier::app
