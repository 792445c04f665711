#include "app/cli/flag_table.h"

#include "base/text.h"

namespace atelier::app {

std::vector<FlagInfo> flag_table(unsigned surface) {
  std::vector<FlagInfo> out;
  Settings settings;
  settings.fields([&](const std::string& section, const Field& field, const FieldRef& slot) {
    if (section == "unsupported" || !(field.surfaces & surface)) return;
    FlagInfo flag{.names = {std::string(field.name)},
                  .help = std::string(field.help),
                  .section = section,
                  .choices = words_of(field.choices),
                  .variable = std::string(field.variable),
                  .is_switch = is_switch(slot),
                  .is_list = is_list(slot)};
    for (auto& alias : words_of(field.aliases)) flag.names.push_back(std::move(alias));
    out.push_back(std::move(flag));
  });
  return out;
}

}  // namespace atelier::app
