// The command line: which command, which flags, which exit code.
#include "app/cli/cli.h"

#include <c10/util/Exception.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string_view>

#include "app/cli/commands.h"
#include "base/error.h"
#include "base/printable.h"
#include "base/version.h"
#include "pipeline/device.h"

namespace atelier::app {
namespace {

struct Command {
  std::string_view name, help;
  int (*run)(const Arguments&);
};

constexpr Command kCommands[] = {
    {"t2i", "draw pictures from prompts, flags as Diffgentor has them", t2i_command},
    {"run", "the same, flags as xDiT has them", run_command},
    {"sdxl", "a CSV file of prompts, several seeds each, flags as the SDXL scripts have them", sdxl_command},
    {"edit", "edit pictures by instruction: needs a model for it, of which this build has none",
     edit_command},
    {"verify", "repeat recorded calls of a model and compare, or run the parity matrix", verify_command},
    {"config", "config show: every setting, its value and who set it", config_command},
    {"bench", "milliseconds per step of layouts, as JSON", bench_command},
    {"layouts", "every valid layout of a model on a number of ranks", layouts_command},
    {"doctor", "what this build and this machine have", doctor_command},
    {"worker", "", worker_command},
};

// Commands of the whole program that are not in this build.
constexpr std::string_view kAbsent[] = {"serve",   "plan",       "selftest", "monitor",
                                        "convert", "tune_batch", "clean"};

void print_help(std::FILE* out) {
  std::fputs(
      "Atelier draws pictures from prompts.\n\nusage: atelier COMMAND [flags]; atelier COMMAND --help lists "
      "flags\n\n",
      out);
  for (const auto& c : kCommands) {
    if (!c.help.empty())
      std::fprintf(out, "  %-10s%s\n", std::string(c.name).c_str(), std::string(c.help).c_str());
  }
  std::fputs("\n  atelier t2i --model_name mini --prompt \"a red circle above a blue square\"\n", out);
}

std::string known_commands() {
  std::string known;
  for (const auto& c : kCommands) {
    if (!c.help.empty()) known += (known.empty() ? "" : ", ") + std::string(c.name);
  }
  return known;
}

void print_error(const std::string& message) {
  std::fprintf(stderr, "error: %s\n", printable(message).c_str());
}

int dispatch(const Arguments& all) {
  if (all.empty()) {
    print_help(stdout);
    return 1;
  }
  if (all[0] == "--help" || all[0] == "-h" || all[0] == "help") {
    print_help(stdout);
    return 0;
  }
  if (all[0] == "--version") {
    std::printf("atelier %s\n", kVersion);
    return 0;
  }
  const std::string name = one_spelling({"--" + all[0]}).front().substr(2);
  for (const auto& c : kCommands) {
    if (name == c.name) return c.run(one_spelling({all.begin() + 1, all.end()}));
  }
  if (std::find(std::begin(kAbsent), std::end(kAbsent), name) != std::end(kAbsent)) {
    throw Error(Kind::kUsage, str(all[0], " is not in this build; it has ", known_commands()));
  }
  throw Error(Kind::kUsage, str("\"", all[0], "\" is no command; there are ", known_commands()));
}

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
  ::signal(SIGPIPE, SIG_IGN);  // whoever reads along may leave; what is drawn is drawn
  pipeline::prepare_process();
  try {
    return dispatch(Arguments(argv + std::min(argc, 1), argv + argc));
  } catch (const Error& e) {
    print_error(e.what());
    return exit_code(e.kind());
  } catch (const std::filesystem::filesystem_error& e) {
    print_error(e.what());
    return exit_code(e.code() == std::errc::no_space_on_device ? Kind::kCapacity : Kind::kUsage);
  } catch (const c10::OutOfMemoryError& e) {
    print_error(str("out of memory: ", e.what_without_backtrace()));
    return exit_code(Kind::kCapacity);
  } catch (const c10::Error& e) {
    print_error(e.what_without_backtrace());
    return 1;
  } catch (const std::exception& e) {
    print_error(e.what());
    return 1;
  }
}

}  // namespace atelier::app
