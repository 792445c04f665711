#include "app/cli/parse.h"

#include <iostream>

#include "base/error.h"

namespace atelier::app {

bool parse_arguments(CLI::App& command, const Arguments& arguments) {
  try {
    command.parse(Arguments(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    std::cout << command.help();
    return false;
  } catch (const CLI::ParseError& e) {
    throw Error(Kind::kUsage, str(e.what(), "; see ", command.get_name(), " --help"));
  }
  return true;
}

}  // namespace atelier::app
