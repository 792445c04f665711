// The arguments of commands that have flags of their own.
#pragma once
#include <CLI/CLI.hpp>

#include "app/cli/commands.h"
#include "app/cli/flag_table.h"

namespace atelier::app {

// False: --help was asked for and printed. Throws Error(kUsage) for arguments that `command` does not take.
bool parse_arguments(CLI::App& command, const Arguments& arguments);

// The flags of its own that a command has, beside those of the settings: what its --help lists first.
std::vector<FlagInfo> own_flags(int (*command)(const Arguments&), const Arguments& arguments);

// For parsers: whether somebody asks what flags there are. They are told, and the command is to end.
bool tell_flags(const CLI::App& command);

}  // namespace atelier::app
