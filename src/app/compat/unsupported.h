// Settings that the tools users come from have and this build does not: refused by name, or taken with one
// note. Never ignored.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/field.h"

namespace atelier::app {

enum class Treated { kRefused, kNoted };

struct Unsupported {
  enum class Takes { kSwitch, kValue, kList };
  std::string_view name;
  Takes takes = Takes::kSwitch;
  std::string_view neutral;  // a value that asks for nothing: never refused
  std::string_view why;      // the rest of the sentence "--name ..."
  Treated treated = Treated::kRefused;
  unsigned surfaces = 0;
};

const std::vector<Unsupported>& unsupported_settings();

// What was given for them.
struct UnsupportedSettings {
  struct Value {
    bool on = false;
    std::string text;
    std::vector<std::string> words;
  };
  std::map<std::string_view, Value> values;

  void fields(const Visit& visit);
  // Settings that ask for something, in the order of the table.
  std::vector<const Unsupported*> asked() const;
};

}  // namespace atelier::app
