// atelier config show: every setting, its value, and who set it.
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/compat/scripts.h"
#include "app/run/layout_choice.h"
#include "base/error.h"
#include "base/log.h"
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

void print_json(Resolved& resolved) {
  Json out = Json::object();
  resolved.settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
    if (!is_shown(resolved, section, field)) return;
    const std::string key(field.name);
    out[section][key] = json_of(slot);
    out["sources"][key] = resolved.origin(key).text;
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
    std::cout << "  " << std::left << std::setw(33) << key << std::setw(28) << shown(slot) << "  "
              << resolved.origin(key).text << "\n";
  });
}

}  // namespace

int config_command(const Arguments& arguments) {
  constexpr const char* kUsage =
      "atelier config show [t2i|run|video|sdxl] [--json] [flags of that command]: settings and who set them";
  const bool is_help = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h");
  if (is_help) std::cout << kUsage << "\n";
  if (is_help) return 0;
  if (arguments.empty() || arguments[0] != "show")
    throw Error(Kind::kUsage, str("config knows one word: ", kUsage));
  const bool is_named = arguments.size() > 1 && (arguments[1] == "run" || arguments[1] == "t2i" ||
                                                 arguments[1] == "video" || arguments[1] == "sdxl");
  const std::string command = is_named ? arguments[1] : "t2i";
  const FlagSet set{command == "run"     ? kRun
                    : command == "video" ? kVideo
                    : command == "sdxl"  ? kSdxl
                                         : kT2i,
                    "config show " + command,
                    "Prints every setting of " + command + ", its value, and who set it.",
                    {"json"}};
  const Parsed parsed = parse_flags(set, {arguments.begin() + (is_named ? 2 : 1), arguments.end()});
  if (parsed.is_help) return 0;
  Resolved resolved = resolve(set.surface, parsed.flags, environment(), parsed.config);
  show_gpus(resolved);
  settle_workers(resolved,
                 std::max<int>(pipeline::cuda_devices(), std::ssize(resolved.settings.scripts.gpu_ids)));
  for (const auto& w : resolved.warnings) log::warning(w);
  const auto degrees = degrees_of(resolved);
  if (parsed.switches.count("json")) {
    print_json(resolved);
    return 0;
  }
  print_table(resolved);
  const bool is_one = degrees == plan::ParallelConfig();
  const bool is_by_mode = is_one && set.surface == kSdxl;
  std::cout << "layout of these: "
            << (is_by_mode
                    ? str(resolved.settings.device.num_gpus, " ranks, mode ", resolved.settings.scripts.mode)
                : is_one ? "one rank"
                         : plan::to_string(degrees))
            << "\n";
  for (const auto& note : resolved.notes) std::cout << "note: " << note << "\n";
  return 0;
}

}  // namespace atelier::app
