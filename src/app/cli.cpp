// The command line: which command, which flags, which exit code.
#include "app/cli.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <string_view>

#include "app/commands.h"
#include "base/error.h"

#if __has_include("engine/worker.h")
#include "engine/worker.h"
#endif

namespace atelier::app {
namespace {

struct Command {
  std::string_view name, help;
  int (*run)(const Arguments&);
};

constexpr Command kCommands[] = {
    {"verify", "repeat the call that a folder of recorded values describes and compare", verify_command},
};

}  // namespace

std::vector<std::string> one_spelling(std::vector<std::string> arguments) {
  for (auto& a : arguments) {
    if (a == "--") break;
    if (!a.starts_with("--")) continue;
    std::replace(a.begin() + 2, std::find(a.begin() + 2, a.end(), '='), '-', '_');
  }
  return arguments;
}

int main(int argc, char** argv) {
  try {
    const Arguments all(argv + std::min(argc, 1), argv + argc);
    for (const auto& c : kCommands) {
      if (!all.empty() && all[0] == c.name) return c.run(one_spelling({all.begin() + 1, all.end()}));
    }
    return 1;
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return exit_code(e.kind());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 1;
  }
}

}  // namespace atelier::app
