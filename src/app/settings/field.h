// One setting as data: its spellings, its place in the environment, its help; and its value, whatever its
// type.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"

namespace atelier::app {

enum Surface : unsigned {
  kT2i = 1,  // Diffgentor's flags
  kRun = 2,  // xDiT's flags
  kBoth = kT2i | kRun,
};

struct Field {
  std::string_view name;           // the flag, the key in files and in `config show`
  std::string_view help;           // empty: not in --help
  std::string_view aliases = "";   // other names of the flag and the key, separated by spaces
  std::string_view variable = "";  // of the environment
  std::string_view choices = "";   // words separated by spaces; empty: anything
  unsigned surfaces = kBoth;       // commands whose flag it is
};

// Where a setting's value lives. Optionals are unset until somebody says.
using FieldRef =
    std::variant<bool*, std::optional<bool>*, int*, std::optional<int>*, double*, std::optional<double>*,
                 std::optional<uint64_t>*, std::string*, std::vector<int>*, std::vector<std::string>*>;
using Visit = std::function<void(const Field&, FieldRef)>;

bool is_switch(const FieldRef& slot);
bool is_list(const FieldRef& slot);

// Reads a value from words, such as those behind a flag. where: begins the message of Error(kUsage) when a
// word does not fit: "--height". A list of numbers may be one word with commas.
void set_from_text(const Field& field, const FieldRef& slot, const std::vector<std::string>& words,
                   const std::string& where);
// The same for a value of a file. null leaves the slot as it is.
void set_from_json(const Field& field, const FieldRef& slot, const Json& value, const std::string& where);
// true, yes, on, 1 and their opposites, in any case; none for anything else.
std::optional<bool> to_switch(std::string_view word);

Json to_json(const FieldRef& slot);                        // null: unset
std::string shown(const FieldRef& slot);                   // for people; "(unset)"
std::vector<std::string> words_of(std::string_view text);  // separated by spaces or commas

}  // namespace atelier::app
