// One setting, or one field of a request, as data: its spellings, its limits, what it decides; and where its
// value lives, whatever its type. A struct lists its fields once, in fields(visit); flags, files, the wire,
// records and limits go through that list.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"

namespace atelier {

enum class Effect {
  kPlace,  // where something comes from or goes to
  kLook,   // what the output looks like: in its metadata and its ledger line
  kShape,  // the same, and the requests of one batch must agree on it
};

inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();

struct Field {
  std::string_view name;           // the flag, the key in files and records, the column of prompt files
  std::string_view help = "";      // empty: not in --help
  std::string_view aliases = "";   // other names of the flag and the key, separated by spaces
  std::string_view variable = "";  // of the environment
  std::string_view choices = "";   // words separated by spaces; empty: anything
  unsigned surfaces = ~0u;         // bits: commands whose flag it is
  double least = -kNoLimit, most = kNoLimit;  // of a number; most of a text: bytes
  Effect effect = Effect::kPlace;
  std::string_view unset = "";  // a word that means the same as saying nothing
  // The choice that another word, in small letters, stands for; where it stands for none, that word.
  std::string (*choice_of)(std::string_view word) = nullptr;
};

// Where a value lives. Optionals are unset until somebody says.
using FieldRef =
    std::variant<bool*, std::optional<bool>*, int*, std::optional<int>*, int64_t*, uint64_t*,
                 std::optional<uint64_t>*, double*, std::optional<double>*, std::string*,
                 std::optional<std::string>*, std::filesystem::path*, std::optional<std::array<int, 2>>*,
                 std::vector<int>*, std::vector<std::string>*, std::optional<std::vector<std::string>>*>;
using Visit = std::function<void(const Field&, FieldRef)>;

bool is_switch(const FieldRef& slot);
bool is_list(const FieldRef& slot);  // several values, a pair of numbers too
bool is_text(const FieldRef& slot);  // one text, which is taken as it stands

// Reads a value from words, such as those behind a flag. where: begins the message of Error(kUsage) when a
// word does not fit: "--height"; may be empty. A list or pair of numbers may be one word with commas. Limits
// are not looked at.
void set_from_text(const Field& field, const FieldRef& slot, const std::vector<std::string>& words,
                   const std::string& where);
// The same for a value of a file. null leaves the slot as it is.
void set_from_json(const Field& field, const FieldRef& slot, const Json& value, const std::string& where);
// Throws Error(kUsage) unless the value, if there is one, is within the field's limits.
void check_limits(const Field& field, const FieldRef& slot, const std::string& where);
// true, yes, on, 1 and their opposites, in any case; none for anything else.
std::optional<bool> to_switch(std::string_view word);

Json json_of(const FieldRef& slot);                        // null: unset
std::string shown(const FieldRef& slot);                   // for people; "(unset)"
std::string shown(const Json& value);                      // for people, at most 60 bytes
std::vector<std::string> words_of(std::string_view text);  // separated by spaces or commas

// Calls the visitor for every field of an object.
using Fields = std::function<void(const Visit&)>;
// Those of an object that must not change: the visitor only reads.
template <class T>
Fields fields_of(const T& object) {
  return [&object](const Visit& visit) { const_cast<T&>(object).fields(visit); };
}

// The fields that are set, by name.
Json fields_to_json(const Fields& fields);
void fields_from_json(const Fields& fields, const Json& json);

// The fields that a JSON object holds. Throws Error(kUsage) naming a field whose value does not fit.
template <class T>
T fields_from_json(const Json& json) {
  T out;
  fields_from_json(Fields([&](const Visit& visit) { out.fields(visit); }), json);
  return out;
}

// Gives every optional field that is unset the value it has in `defaults`.
template <class T>
void fill_unset(T& object, const T& defaults) {
  std::vector<FieldRef> from;
  fields_of(defaults)([&](const Field&, const FieldRef& slot) { from.push_back(slot); });
  size_t next = 0;
  object.fields([&](const Field&, const FieldRef& slot) {
    std::visit(
        [&]<class V>(V* mine) {
          if constexpr (requires { mine->has_value(); }) {
            if (!mine->has_value()) *mine = **std::get_if<V*>(&from[next]);
          }
        },
        slot);
    ++next;
  });
}

}  // namespace atelier
