// The commands of the program. Each takes its own arguments and gives the exit code; all may throw Error.
#pragma once
#include <string>
#include <vector>

namespace atelier::app {

using Arguments = std::vector<std::string>;  // behind the command's name, in one spelling

int verify_command(const Arguments& arguments);

}  // namespace atelier::app
