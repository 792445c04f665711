// atelier config show: every setting, its value, and who set it.
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/flags.h"
#include "app/run/layout_choice.h"
#include "base/error.h"
#include "base/log.h"
#include "plan/parallel_config.h"

namespace atelier::app {
namespace {

// Settings that this build refuses are shown only where somebody has set them.
bool is_shown(const Resolved& resolved, const std::string& section, const Field& field) {
  return resolved.is_set(std::string(field.name)) || (section != "later" && !field.help.empty());
}

void print_json(Resolved& resolved) {
  Json out = Json::object();
  resolved.settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
    if (!is_shown(resolved, section, field)) return;
    const std::string key(field.name);
    out[section][key] = to_json(slot);
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
    std::cout << "  " << std::left << std::setw(26) << key << std::setw(28) << shown(slot) << "  "
              << resolved.origin(key).text << "\n";
  });
}

}  // namespace

int config_command(const Arguments& arguments) {
  if (arguments.empty() || arguments[0] != "show") {
    const bool is_help = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h");
    if (is_help) std::cout << "atelier config show [--json] [flags of t2i]: settings and who set them\n";
    if (is_help) return 0;
    throw Error(Kind::kUsage, "config knows one word: atelier config show [--json] [flags of t2i]");
  }
  const FlagSet set{kT2i, "config show", "Prints every setting of t2i, its value, and who set it.", {"json"}};
  const Parsed parsed = parse_flags(set, {arguments.begin() + 1, arguments.end()});
  if (parsed.is_help) return 0;
  Resolved resolved = resolve(set.surface, parsed.flags, environment(), parsed.config);
  for (const auto& w : resolved.warnings) log::warning(w);
  const auto degrees = degrees_of(resolved);
  if (parsed.switches.count("json")) {
    print_json(resolved);
  } else {
    print_table(resolved);
    const std::string layout = plan::to_string(degrees);
    std::cout << "layout of these: " << (layout.empty() ? "one rank" : layout) << "\n";
  }
  return 0;
}

}  // namespace atelier::app
