// atelier config show: every setting, its value, and who set it.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/compat/scripts.h"
#include "app/run/layout_choice.h"
#include "app/settings/command_text.h"
#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"
#include "base/secrets.h"
#include "pipeline/device.h"
#include "plan/parallel_config.h"

namespace atelier::app {
namespace {

// Settings that this build refuses are shown only where somebody has set them.
bool is_shown(const Resolved& resolved, const std::string& section, const Field& field) {
  const bool is_offered =
      section != "unsupported" && !field.help.empty() && (field.surfaces & resolved.surface);
  return resolved.is_set(std::string(field.name)) || is_offered;
}

Json without_secrets(Json value) {
  if (value.is_string()) return hide_secrets(value.get<std::string>());
  if (value.is_array()) std::transform(value.begin(), value.end(), value.begin(), without_secrets);
  return value;
}

void print_json(Resolved& resolved) {
  Json out = Json::object();
  resolved.settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
    if (!is_shown(resolved, section, field)) return;
    const std::string key(field.name);
    out[section][key] = without_secrets(json_of(slot));
    out["sources"][key] = hide_secrets(resolved.origin(key).text);
  });
  std::cout << out.dump(2) << "\n";
}

void print_table(Resolved& resolved) {
  std::string last;
  resolved.settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
    if (!is_shown(resolved, section, field)) return;
    if (section != last) std::cout << "[" << section << "]\n";
    last = section;
    const std::string key(field.name);
    std::cout << "  " << std::left << std::setw(33) << key << std::setw(28) << printable(shown(slot)) << "  "
              << printable(resolved.origin(key).text) << "\n";
  });
}

}  // namespace

int config_command(const Arguments& arguments) {
  constexpr Surface kShown[] = {kT2i, kRun, kVideo, kScripts};
  std::string commands;
  for (const Surface s : kShown) commands += str(commands.empty() ? "" : "|", command_of(s));
  const std::string usage =
      str("atelier config show [", commands, "] [--json] [flags of that command]: settings and who set them");
  const bool is_help = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h");
  if (is_help) std::cout << usage << "\n";
  if (is_help) return 0;
  if (arguments.empty() || arguments[0] != "show")
    throw Error(Kind::kUsage, str("config knows one word: ", usage));
  const auto* const named = arguments.size() < 2
                                ? std::end(kShown)
                                : std::find_if(std::begin(kShown), std::end(kShown),
                                               [&](Surface s) { return arguments[1] == command_of(s); });
  const bool is_named = named != std::end(kShown);
  const Surface surface = is_named ? *named : kT2i;
  const std::string command = command_of(surface);
  const FlagSet set{surface,
                    "config show " + command,
                    "Prints every setting of " + command + ", its value, and who set it.",
                    {{"json", "as JSON"}}};
  const Parsed parsed = parse_flags(set, {arguments.begin() + (is_named ? 2 : 1), arguments.end()});
  if (parsed.is_help) return 0;
  Resolved resolved = resolve(set.surface, parsed.flags, environment(), parsed.config);
  show_gpus(resolved);
  settle_workers(resolved, std::max(pipeline::cuda_devices(),
                                    static_cast<int>(resolved.settings.scripts.gpu_ids.size())));
  for (const auto& w : resolved.warnings) log::warning(w);
  const auto degrees = degrees_of(resolved);
  if (parsed.switches.count("json")) {
    print_json(resolved);
    return 0;
  }
  print_table(resolved);
  const bool is_one = degrees == plan::ParallelConfig();
  const bool is_by_mode = is_one && set.surface == kScripts;
  std::cout << "layout of these: "
            << (is_by_mode
                    ? str(resolved.settings.device.num_gpus, " ranks, mode ", resolved.settings.scripts.mode)
                : is_one ? "one rank"
                         : plan::to_string(degrees))
            << "\n";
  for (const auto& note : resolved.notes) std::cout << "note: " << printable(note) << "\n";
  return 0;
}

}  // namespace atelier::app
