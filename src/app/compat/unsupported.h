// Settings that the tools users come from have and this build does not: refused by name, or taken with one
// note. Never ignored.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/settings/field.h"

namespace atelier::app {

enum class Takes { kSwitch, kValue, kList };
enum class Treated { kRefused, kNoted };

struct UnsupportedSetting {
  std::string_view name;
  Takes takes;
  std::string_view neutral;  // a value that asks for nothing: never refused
  std::string_view why;      // the rest of the sentence "--name ..."
  Treated treated = Treated::kRefused;
  std::string_view aliases = "";
  std::string_view choices = "";
  unsigned surfaces = kBoth;
};

std::span<const UnsupportedSetting> unsupported_settings();

}  // namespace atelier::app
