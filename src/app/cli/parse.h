// The arguments of commands that have flags of their own.
#pragma once
#include <CLI/CLI.hpp>

#include "app/cli/commands.h"

namespace atelier::app {

// False: --help was asked for and printed. Throws Error(kUsage) for arguments that `command` does not take.
bool parse_arguments(CLI::App& command, const Arguments& arguments);

}  // namespace atelier::app
