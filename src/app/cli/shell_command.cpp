// atelier completion and atelier man: what shells and readers learn of the flags, made from the
// table of them.
#include <algorithm>
#include <cctype>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "app/cli/commands.h"
#include "app/cli/flag_table.h"
#include "app/cli/flags.h"
#include "app/settings/command_text.h"
#include "base/error.h"
#include "base/version.h"

namespace atelier::app {
namespace {

std::string words(const std::vector<std::string>& list) {
  std::string out;
  for (const auto& word : list) out += (out.empty() ? "" : " ") + word;
  return out;
}

// A command's flags: its own, then its surface's.
std::vector<FlagInfo> flags_of(const CommandInfo& command) {
  auto out = own_flags_of(command.name);
  if (command.surface == 0) return out;
  for (auto& flag : flag_table(command.surface)) out.push_back(std::move(flag));
  return out;
}

// Every spelling of a command's flags.
std::vector<std::string> spellings(const CommandInfo& command) {
  std::vector<std::string> out{"--help"};
  if (command.surface != 0) out.emplace_back("--config");
  for (const auto& flag : flags_of(command)) {
    for (const auto& name : flag.names) {
      out.push_back(dashed(name));
      const bool can_be_off = flag.is_switch && flag.section != "own" && name.size() > 1;
      if (can_be_off && !name.starts_with("no_")) out.push_back("--no_" + name);
    }
  }
  return out;
}

std::string visible_commands() {
  std::vector<std::string> names;
  for (const auto& c : commands()) names.emplace_back(c.name);
  return words(names);
}

// Both spellings of a flag are completed: --num-gpus by what was typed with a dash.
constexpr const char* kBashEnd = R"(  esac
  if [[ $cur == --*-* ]]; then flags=${flags//_/-}; fi
  if [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  fi
}
complete -o filenames -F _atelier atelier diffgentor
)";

void print_bash(std::ostream& out) {
  out << "# Completion for bash: source <(atelier completion bash)\n"
         "_atelier() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} flags=\n"
         "  if ((COMP_CWORD == 1)); then\n"
         "    mapfile -t COMPREPLY < <(compgen -W \""
      << visible_commands() << "\" -- \"$cur\")\n    return\n  fi\n  case ${before//-/_} in\n";
  std::set<std::string> seen;
  for (const unsigned surface : {kT2i | kRun, unsigned{kScripts}}) {
    for (const auto& flag : flag_table(surface)) {
      if (flag.choices.empty() || !seen.insert(flag.names.front()).second) continue;
      out << "    __" << flag.names.front() << ") mapfile -t COMPREPLY < <(compgen -W \""
          << words(flag.choices) << "\" -- \"$cur\"); return ;;\n";
    }
  }
  out << "  esac\n  case ${COMP_WORDS[1]//-/_} in\n";
  for (const auto& c : commands()) {
    out << "    " << c.name << ") flags=\"" << words(spellings(c)) << "\" ;;\n";
  }
  out << "    *) flags=--help ;;\n" << kBashEnd;
}

std::string quoted_for_fish(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' || c == '\\' ? std::string{'\\', c} : std::string{c};
  return out + "'";
}

void print_fish(std::ostream& out) {
  out << "# Completion for fish: atelier completion fish | source\ncomplete -c atelier -f\n";
  for (const auto& c : commands()) {
    out << "complete -c atelier -n __fish_use_subcommand -a " << c.name << " -d "
        << quoted_for_fish(std::string(c.help)) << "\n";
    for (const auto& flag : flags_of(c)) {
      out << "complete -c atelier -n '__fish_seen_subcommand_from " << c.name << "'";
      for (const auto& name : flag.names) out << (name.size() == 1 ? " -s " : " -l ") << name;
      if (!flag.help.empty()) out << " -d " << quoted_for_fish(flag.help);
      if (!flag.choices.empty()) {
        out << " -x -a " << quoted_for_fish(words(flag.choices));
      } else if (!flag.is_switch) {
        out << " -r -F";
      }
      out << "\n";
    }
  }
}

// zsh reads bash's.
void print_zsh(std::ostream& out) {
  out << "# Completion for zsh: source <(atelier completion zsh)\n"
         "autoload -U +X bashcompinit && bashcompinit\n"
         "mapfile() { shift; local line; eval \"$1=()\"; while IFS= read -r line; do eval "
         "\"$1+=(\\\"\\$line\\\")\"; done }\n";
  print_bash(out);
}

// A line of troff: backslashes doubled, a dot or quote at its beginning made harmless.
std::string troff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return !out.empty() && (out[0] == '.' || out[0] == '\'') ? "\\&" + out : out;
}

std::string upper(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

void print_flags(std::ostream& out, const std::vector<FlagInfo>& flags, std::set<std::string>& told) {
  std::string section = "own";
  for (const auto& flag : flags) {
    if (flag.help.empty() || !told.insert(flag.names.front()).second) continue;
    if (flag.section != section) out << ".SS " << (section = flag.section) << "\n";
    std::string names;
    for (const auto& name : flag.names) names += (names.empty() ? "" : ", ") + dashed(name);
    out << ".TP\n.B " << troff(names) << "\n" << troff(flag.help);
    if (!flag.choices.empty()) out << troff("; one of " + words(flag.choices));
    if (!flag.variable.empty()) out << troff("; environment: " + flag.variable);
    out << "\n";
  }
}

}  // namespace

int completion_command(const Arguments& arguments) {
  const std::map<std::string, void (*)(std::ostream&)> shells{
      {"bash", print_bash}, {"fish", print_fish}, {"zsh", print_zsh}};
  const auto found = arguments.size() == 1 ? shells.find(arguments[0]) : shells.end();
  if (found == shells.end()) {
    const bool is_help = !arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h");
    if (!is_help) throw Error(Kind::kUsage, "completion needs a shell: bash, zsh or fish");
    std::cout << "usage: atelier completion bash|zsh|fish: prints what that shell completes commands and "
                 "flags with\n";
    return 0;
  }
  found->second(std::cout);
  return 0;
}

int man_command(const Arguments& arguments) {
  if (!arguments.empty()) {
    if (arguments[0] != "--help" && arguments[0] != "-h") throw Error(Kind::kUsage, "man takes no arguments");
    std::cout << "usage: atelier man: prints the manual page; atelier man | man -l - shows it\n";
    return 0;
  }
  std::ostream& out = std::cout;
  out << ".TH ATELIER 1 \"\" \"atelier " << kVersion
      << "\"\n.SH NAME\natelier \\- draws pictures from prompts on many GPUs\n"
      << ".SH SYNOPSIS\n.B atelier\n.I COMMAND\n[flags]\n.SH COMMANDS\n";
  for (const auto& c : commands()) out << ".TP\n.B " << c.name << "\n" << troff(std::string(c.help)) << "\n";
  std::set<std::string> told;
  out << ".SH FLAGS OF T2I, RUN, BENCH AND PLAN\n"
      << troff("--a_b and --a-b are one flag. Precedence: flag, environment, --config file, default.")
      << "\n";
  print_flags(out, flag_table(kT2i | kRun), told);
  for (const auto& [surface, name] :
       {std::pair{kVideo, command_of(kVideo)}, {kScripts, command_of(kScripts)}, {kServe, "serve"}}) {
    out << ".SH FURTHER FLAGS OF " << upper(name) << "\n";
    print_flags(out, flag_table(surface), told);
  }
  for (const auto& c : commands()) {
    const auto own = own_flags_of(c.name);
    if (own.empty()) continue;
    out << ".SH OWN FLAGS OF " << upper(c.name) << "\n";
    std::set<std::string> of_this;
    print_flags(out, own, of_this);
  }
  out << ".SH EXIT STATUS\n0 done; 1 some item or comparison failed; 2 wrong usage or unusable model; 3 does "
         "not fit; 130 "
         "interrupted.\n";
  return 0;
}

}  // namespace atelier::app
