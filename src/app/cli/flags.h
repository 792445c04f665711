// From arguments to flags: every field of the settings is one flag, in all its spellings.
#pragma once
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "app/cli/commands.h"
#include "app/settings/resolve.h"

namespace atelier::app {

// A flag of one command.
struct OwnFlag {
  std::string name, help = "";
};

struct FlagSet {
  Surface surface = kT2i;
  std::string name, about;           // for --help
  std::vector<OwnFlag> switches;     // of this command only: "json"
  std::set<std::string> unused;      // flags of the surface that this command has no use for
  std::string why;                   // a clause about them: "it draws nothing"
  std::vector<OwnFlag> values = {};  // flags of this command only that take one value: "input"
};

struct Parsed {
  bool is_help = false;  // --help was asked for and printed
  std::vector<Given> flags;
  std::filesystem::path config;
  std::set<std::string> switches;
  std::map<std::string, std::string> values;  // those that were given
};

// "-n" or "--name".
std::string dashed(const std::string& name);
// arguments in one spelling (one_spelling). Throws Error(kUsage) naming the nearest known flag.
Parsed parse_flags(const FlagSet& set, const Arguments& arguments);

}  // namespace atelier::app
