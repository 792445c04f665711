#include "app/cli/parse.h"

#include <iostream>
#include <memory>
#include <utility>

#include "base/error.h"

namespace atelier::app {
namespace {

thread_local std::vector<FlagInfo>* listener = nullptr;  // who asks a parser for its flags

}  // namespace

std::vector<FlagInfo> own_flags(int (*command)(const Arguments&), const Arguments& arguments) {
  std::vector<FlagInfo> out;
  listener = &out;
  const auto end = [](std::vector<FlagInfo>*) { listener = nullptr; };
  const std::unique_ptr<std::vector<FlagInfo>, decltype(end)> ending(&out, end);
  command(arguments);
  return out;
}

bool tell_flags(const CLI::App& command) {
  if (listener == nullptr) return false;
  CLI::App plain;
  for (const auto* option : command.get_options()) {
    const auto& names = option->get_lnames();
    const bool is_setting = option->get_group() != plain.option_defaults()->get_group();
    if (is_setting || names.empty() || names.front() == "help" || names.front() == "config") continue;
    listener->push_back({.names = names,
                         .help = option->get_description(),
                         .section = "own",
                         .is_switch = option->get_items_expected_max() == 0});
  }
  return true;
}

bool parse_arguments(CLI::App& command, const Arguments& arguments) {
  if (tell_flags(command)) return false;
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
