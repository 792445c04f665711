// The command line: which command, which flags, which exit code.
#include "app/cli/cli.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "app/cli/commands.h"
#include "app/cli/flag_table.h"
#include "app/cli/parse.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/json_problem.h"
#include "base/printable.h"
#include "base/version.h"
#include "pipeline/device.h"

namespace atelier::app {
namespace {

struct Command {
  CommandInfo info;
  int (*run)(const Arguments&);
};

constexpr Command kCommands[] = {
    {{"t2i", "draw pictures from prompts, flags as Diffgentor has them", kT2i}, t2i_command},
    {{"run", "the same, flags as xDiT has them", kRun}, run_command},
    {{"video", "draw videos from prompts, pictures and videos; flags as xDiT has them", kVideo},
     video_command},
    {{"sdxl", "a CSV file of prompts, several seeds each, flags as the SDXL scripts have them", kScripts},
     scripts_command},
    {{"edit", "edit pictures by instruction: needs a model for it, of which this build has none", kT2i},
     edit_command},
    {{"serve", "stay loaded and draw what is asked over HTTP; a page for browsers", kServe}, serve_command},
    {{"verify", "repeat recorded calls of a model and compare, or run the parity matrix"}, verify_command},
    {{"convert", "a checkpoint's tensors under the names of another tool"}, convert_command},
    {{"config", "config show: every setting, its value and who set it", kT2i}, config_command},
    {{"bench", "times of layouts as JSON; --protocol: a whole benchmark, as a page", kBoth}, bench_command},
    {{"report", "a page from results: of a benchmark, or of a family of models on all hardware"},
     report_command},
    {{"compare", "two results: exit code 1 where the second is slower than noise explains"}, compare_command},
    {{"plan", "what every layout would take and hold, the fastest first", kBoth}, plan_command},
    {{"layouts", "every valid layout of a model on a number of ranks", kBoth}, layouts_command},
    {{"tune_batch", "the largest batch that fits", kBoth}, tune_batch_command},
    {{"doctor", "what this build and this machine have, lack and need"}, doctor_command},
    {{"selftest", "six checks that end in pictures drawn on one rank and on two"}, selftest_command},
    {{"monitor", "memory, load and links of the GPUs, again and again"}, monitor_command},
    {{"clean", "what caches take, and their removal"}, clean_command},
    {{"completion", "completion for bash, zsh or fish"}, completion_command},
    {{"man", "the manual page"}, man_command},
    {{"tensor_server", ""}, tensor_server_command},
    {{"worker", ""}, worker_command},
};

void print_help(std::FILE* out) {
  std::fputs(
      "Atelier draws pictures and videos from prompts.\n\nusage: atelier COMMAND [flags]; atelier COMMAND "
      "--help lists "
      "flags\n\n",
      out);
  for (const auto& c : kCommands) {
    if (!c.info.help.empty())
      std::fprintf(out, "  %-12s%s\n", std::string(c.info.name).c_str(), std::string(c.info.help).c_str());
  }
  std::fputs("\n  atelier t2i --model_name mini --prompt \"a red circle above a blue square\"\n", out);
}

std::string known_commands() {
  std::string known;
  for (const auto& c : kCommands) {
    if (!c.info.help.empty()) known += (known.empty() ? "" : ", ") + std::string(c.info.name);
  }
  return known;
}

void print_error(const std::string& message) {
  constexpr size_t kMost = 4000, kEnd = 500;  // bytes: a word of a command line may be as long as it likes
  std::string text = printable(message);
  if (text.size() > kMost) text = text.substr(0, kMost - kEnd) + " ... " + text.substr(text.size() - kEnd);
  std::fprintf(stderr, "error: %s\n", text.c_str());
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
    if (name == c.info.name) return c.run(one_spelling({all.begin() + 1, all.end()}));
  }
  throw Error(Kind::kUsage, str("\"", all[0], "\" is no command; there are ", known_commands()));
}

}  // namespace

std::span<const CommandInfo> commands() {
  static const std::vector<CommandInfo> shown = [] {
    std::vector<CommandInfo> out;
    for (const auto& c : kCommands) {
      if (!c.info.help.empty()) out.push_back(c.info);
    }
    return out;
  }();
  return shown;
}

std::vector<FlagInfo> own_flags_of(std::string_view name) {
  const std::map<std::string_view, std::vector<Arguments>> unusual{{"bench", {{}, {"--protocol"}}},
                                                                   {"config", {{"show"}}},
                                                                   {"serve", {}},  // another program
                                                                   {"completion", {}},
                                                                   {"man", {}}};
  const auto at = unusual.find(name);
  std::vector<FlagInfo> out;
  for (const auto& c : kCommands) {
    if (c.info.name != name) continue;
    for (const auto& arguments : at == unusual.end() ? std::vector<Arguments>{{}} : at->second) {
      for (auto& flag : own_flags(c.run, arguments)) out.push_back(std::move(flag));
    }
  }
  return out;
}

std::vector<std::string> one_spelling(std::vector<std::string> arguments) {
  for (auto& a : arguments) {
    if (a == "--") break;
    if (!a.starts_with("--")) continue;
    std::replace(a.begin() + 2, std::find(a.begin() + 2, a.end(), '='), '-', '_');
  }
  return arguments;
}

int main(int argc, char** argv) {
  return run_guarded([&] { return dispatch(Arguments(argv + std::min(argc, 1), argv + argc)); });
}

// What is opened later must not take the numbers of closed standard streams, and be read or written as one.
void open_standard_streams() {
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream) {
    if (::fcntl(stream, F_GETFD) == -1 && errno == EBADF) static_cast<void>(::open("/dev/null", O_RDWR));
  }
}

// The code, or that of a full device where what was printed did not arrive. Who reads from a pipe may leave.
int after_printing(int code) {
  const bool is_lost = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  struct stat output = {};
  const bool is_pipe =
      ::fstat(STDOUT_FILENO, &output) == 0 && (S_ISFIFO(output.st_mode) || S_ISSOCK(output.st_mode));
  if (!is_lost || is_pipe) return code;
  print_error("what was printed could not be written: is its device full?");
  return code == 0 ? exit_code(Kind::kCapacity) : code;
}

int run_guarded(const std::function<int()>& run) {
  open_standard_streams();
  ::signal(SIGPIPE, SIG_IGN);  // whoever reads along may leave; what is drawn is drawn
  ::signal(SIGXFSZ, SIG_IGN);  // a limit on files is told like a full disk
  pipeline::prepare_process();
  try {
    return after_printing(run());
  } catch (const Error& e) {
    print_error(e.what());
    return exit_code(e.kind());
  } catch (const std::filesystem::filesystem_error& e) {
    print_error(problem_of(e));
    return exit_code(e.code() == std::errc::no_space_on_device ? Kind::kCapacity : Kind::kUsage);
  } catch (const c10::OutOfMemoryError& e) {
    print_error(str("out of memory: ", e.what_without_backtrace()));
    return exit_code(Kind::kCapacity);
  } catch (const c10::Error& e) {
    print_error(e.what_without_backtrace());
    return 1;
  } catch (const Json::exception& e) {  // of a file that has another form than a command reads
    print_error("JSON of another form than was expected: " + json_problem(e));
    return exit_code(Kind::kUsage);
  } catch (const std::exception& e) {
    print_error(e.what());
    return 1;
  }
}

}  // namespace atelier::app
