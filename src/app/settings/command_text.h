// The command that was given, with some of it changed: what advice ends in.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "app/settings/resolve.h"

namespace atelier::app {

// A flag as somebody would type it: {"offload", {"model"}}, a switch has no words.
struct FlagChange {
  std::string name;  // canonical
  std::vector<std::string> words;
};

// The command that takes the flags of one surface: "t2i".
const char* command_of(Surface surface);

// "atelier t2i --model_name mini --offload model": what flags and the configuration file have set, but for
// `without`, then the changes, each in place of what was said of it. Ready for a shell; the environment is
// taken as it is.
std::string command_text(const Resolved& resolved, const std::vector<FlagChange>& changes,
                         const std::set<std::string>& without = {});

// The changes alone: "--offload model --batch_size 1".
std::string flags_text(Surface surface, const std::vector<FlagChange>& changes);

// Flags that decide about the layout: one --strategy says the same as all of them.
const std::set<std::string>& layout_flags();

}  // namespace atelier::app
