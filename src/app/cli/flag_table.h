// The flags of every command as data, for what is generated from them: completion, the manual page.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/settings/settings.h"

namespace atelier::app {

// A command as a user sees it. surface 0: all its flags are its own.
struct CommandInfo {
  std::string_view name, help;
  unsigned surface = 0;
};

struct FlagInfo {
  std::vector<std::string> names;  // "model_name", "model"; the first is the flag, one letter is a short one
  std::string help, section;       // help is empty for flags that --help does not list
  std::vector<std::string> choices;
  std::string variable;  // of the environment
  bool is_switch = false, is_list = false;
};

std::span<const CommandInfo> commands();
// Those that a command has beside its surface's: what its own parser takes, in the order of --help.
std::vector<FlagInfo> own_flags_of(std::string_view command);
// Of a surface, in the order of --help.
std::vector<FlagInfo> flag_table(unsigned surface);

}  // namespace atelier::app
