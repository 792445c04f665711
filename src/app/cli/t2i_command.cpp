// atelier t2i, run, video and sdxl: one engine behind four sets of flags.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <stop_token>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/compat/scripts.h"
#include "app/run/draw.h"
#include "app/run/interrupt.h"
#include "app/run/launch_choice.h"
#include "app/run/run_spec.h"
#include "app/settings/command_text.h"
#include "base/error.h"
#include "base/log.h"
#include "cluster/launch/launch.h"
#include "pipeline/device.h"

namespace atelier::app {
namespace {

void set_console(const Settings& s) {
  log::set_console(s.output.quiet                       ? log::Level::kError
                   : s.output.verbose || s.engine.debug ? log::Level::kDebug
                                                        : log::Level::kInfo);
}

int save_dummy(const Resolved& resolved, const FoundModel& model, const std::stop_token& stop) {
  const auto& folder = resolved.settings.model.save_dummy;
  std::error_code ignored;
  const bool is_new = !std::filesystem::exists(folder, ignored);
  const auto undo = [&] {
    if (is_new) std::filesystem::remove_all(folder, ignored);
  };
  // Nothing between two tensors asks whether to stop, and no other work is under way: the process ends here.
  const std::stop_callback leave(stop, [&] {
    undo();
    std::fprintf(stderr, "error: interrupted; %s is not complete\n", folder.c_str());
    ::_exit(exit_code(Kind::kInterrupted));
  });
  int64_t need = 0;
  for (const auto& [part, count] : model.folder.check().parameters) need += 2 * count;
  auto parent = std::filesystem::absolute(folder);
  while (!std::filesystem::exists(parent, ignored) && parent.has_relative_path())
    parent = parent.parent_path();
  const auto space = std::filesystem::space(parent, ignored);
  if (!ignored && space.capacity > 0 && space.available < static_cast<uintmax_t>(need)) {
    throw Error(Kind::kCapacity,
                str("cannot write ", folder, ": it needs ", need >> 20, " MiB, ", space.available >> 20,
                    " MiB are free; choose another folder with --save_dummy"));
  }
  if (!resolved.settings.output.quiet) {
    std::cout << "writing " << (need >> 20) << " MiB: " << model.folder.label() << " to " << folder
              << std::endl;
  }
  try {
    model.folder.save(folder, at::kBFloat16);
  } catch (const std::filesystem::filesystem_error& e) {
    undo();
    throw Error(Kind::kUsage, str("cannot write to ", folder, ": ", e.code().message(),
                                  "; choose another folder with --save_dummy"));
  } catch (...) {
    undo();
    throw;
  }
  if (!resolved.settings.output.quiet)
    std::cout << "wrote " << model.folder.label() << " to " << folder << "\n";
  return 0;
}

// Its exit code. coordinator: of the processes of a launcher, or null.
int draw_here(const Resolved& resolved, const Environment& variables, const Interrupt& interrupt,
              cluster::Coordinator* coordinator) {
  const report::Stopwatch clock;
  const bool is_quiet = resolved.settings.output.quiet;
  const auto tell = [is_quiet](const std::string& line) {
    if (!is_quiet) std::cout << line << std::endl;
  };
  if (!resolved.settings.model.save_dummy.empty())
    return save_dummy(resolved, find_model(resolved, variables, tell, interrupt.token()), interrupt.token());
  auto prompts = read_prompts(resolved);
  auto model = find_model(resolved, variables, tell, interrupt.token());
  check_surface(resolved, model);
  auto spec = make_run_spec(resolved, std::move(model), std::move(prompts),
                            coordinator ? coordinator->env().size : 0);
  spec.clock = clock;
  const StartRun start = [&](const cluster::Job& job, const Batches& batches,
                             const cluster::RunEvents& events, const std::stop_token& stop) {
    return cluster::run_batches(job, batches.source(), events, stop, coordinator);
  };
  return draw(std::move(spec), resolved, interrupt, start);
}

// Leads the processes of a launcher: they end as this one does.
int lead(const Resolved& resolved, const Environment& variables, const Interrupt& interrupt,
         const cluster::LauncherEnv& env) {
  cluster::Coordinator coordinator(env);
  try {
    const int code = draw_here(resolved, variables, interrupt, &coordinator);
    coordinator.finish(code);
    return code;
  } catch (const Error& e) {
    coordinator.finish(exit_code(e.kind()));
    throw;
  }
}

int draw_command(const FlagSet& set, const Arguments& arguments) {
  const Parsed parsed = parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const Environment variables = environment();
  Resolved resolved = resolve(set.surface, parsed.flags, variables, parsed.config);
  set_console(resolved.settings);
  show_gpus(resolved);
  const auto env = find_launch(resolved, variables, pipeline::cuda_devices());
  if (!env) settle_workers(resolved, pipeline::cuda_devices());
  if (env && env->rank > 0) return cluster::run_node_agent(*env);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  const Interrupt interrupt;
  try {
    return env ? lead(resolved, variables, interrupt, *env)
               : draw_here(resolved, variables, interrupt, nullptr);
  } catch (const Error& e) {
    throw Error(e.kind(), with_origins(e.what(), resolved));
  }
}

}  // namespace

int t2i_command(const Arguments& arguments) {
  return draw_command(
      {kT2i,
       "t2i",
       "Draws pictures from prompts. Flags as Diffgentor has them; --a_b and --a-b are one flag.",
       {}},
      arguments);
}

int run_command(const Arguments& arguments) {
  return draw_command(
      {kRun, "run", "Draws pictures from prompts. Flags as xDiT has them; --a_b and --a-b are one flag.", {}},
      arguments);
}

int video_command(const Arguments& arguments) {
  return draw_command(
      {kVideo,
       "video",
       "Draws videos from prompts, and from pictures and videos where the model is shown some. "
       "Flags as xDiT has them; --a_b and --a-b are one flag.",
       {}},
      arguments);
}

int scripts_command(const Arguments& arguments) {
  return draw_command(
      {.surface = kScripts,
       .name = command_of(kScripts),
       .about =
           "Draws a picture for every prompt of a CSV file and every seed, as "
           "<output>/<prompt_id>/<seed>.png, "
           "and lists them in a CSV file beside <output>. Flags as the SDXL scripts have them, and those of "
           "t2i. The VAE decodes one picture after another; attention needs no slicing, as its kernels hold "
           "no matrix of all pairs.",
       .unused = {"prompt", "seed", "num_images_per_prompt"},
       .why = "prompts come from --prompts FILE.csv, and each has a picture for every number of --seeds"},
      arguments);
}

}  // namespace atelier::app
