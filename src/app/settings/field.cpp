// Values of settings from words and from JSON.
#include "app/settings/field.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"

namespace atelier::app {
namespace {

template <class Number>
Number number(const std::string& word, const std::string& where, const char* kind) {
  Number value{};
  const char* begin = word.data() + (word.size() > 1 && word[0] == '+' ? 1 : 0);
  const char* end = word.data() + word.size();
  const auto parsed = std::from_chars(begin, end, value);
  if (parsed.ec == std::errc::result_out_of_range && parsed.ptr == end) {
    throw Error(Kind::kUsage, str(where, ": ", word, " is out of range"));
  }
  if (word.empty() || parsed.ptr != end || parsed.ec != std::errc()) {
    throw Error(Kind::kUsage, str(where, ": \"", word, "\" is not ", kind));
  }
  return value;
}

int integer(const std::string& word, const std::string& where) {
  return number<int>(word, where, "an integer");
}

double real(const std::string& word, const std::string& where) {
  const double value = number<double>(word, where, "a number");
  if (!std::isfinite(value)) throw Error(Kind::kUsage, str(where, ": \"", word, "\" is not a finite number"));
  return value;
}

bool yes_or_no(const std::string& word, const std::string& where) {
  const auto value = to_switch(word);
  if (!value) throw Error(Kind::kUsage, str(where, ": \"", word, "\" is neither true nor false"));
  return *value;
}

std::string choice(const Field& field, const std::string& word, const std::string& where) {
  if (field.choices.empty()) return word;
  const auto known = words_of(field.choices);
  const std::string wanted = lower(word);
  if (std::find(known.begin(), known.end(), wanted) != known.end()) return wanted;
  std::string list;
  for (const auto& k : known) list += (list.empty() ? "" : ", ") + k;
  throw Error(Kind::kUsage, str(where, ": \"", word, "\" is unknown; choose ", list));
}

// Fills any slot from words.
struct FromText {
  const Field& field;
  const std::vector<std::string>& words;
  const std::string& where;

  const std::string& one() const {
    if (words.size() != 1)
      throw Error(Kind::kUsage, str(where, ": one value is needed, ", words.size(), " were given"));
    return words[0];
  }
  void operator()(bool* v) const { *v = yes_or_no(one(), where); }
  void operator()(std::optional<bool>* v) const { *v = yes_or_no(one(), where); }
  void operator()(int* v) const { *v = integer(one(), where); }
  void operator()(std::optional<int>* v) const { *v = integer(one(), where); }
  void operator()(double* v) const { *v = real(one(), where); }
  void operator()(std::optional<double>* v) const { *v = real(one(), where); }
  void operator()(std::optional<uint64_t>* v) const {
    *v = number<uint64_t>(one(), where, "an integer of at least 0");
  }
  void operator()(std::string* v) const { *v = choice(field, one(), where); }
  void operator()(std::vector<int>* v) const {
    v->clear();
    for (const auto& word : words) {
      for (const auto& part : words_of(word)) v->push_back(integer(part, where));
    }
  }
  void operator()(std::vector<std::string>* v) const { *v = words; }
};

std::string word_of(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number()) return value.dump();
  throw Error(Kind::kUsage, str(where, ": a plain value is needed, not ", value.type_name()));
}

template <class T>
Json json_of(const T& value) {
  return value;
}
template <class T>
Json json_of(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

bool is_switch(const FieldRef& slot) {
  return std::holds_alternative<bool*>(slot) || std::holds_alternative<std::optional<bool>*>(slot);
}

bool is_list(const FieldRef& slot) {
  return std::holds_alternative<std::vector<int>*>(slot) ||
         std::holds_alternative<std::vector<std::string>*>(slot);
}

std::optional<bool> to_switch(std::string_view word) {
  const std::string w = lower(word);
  if (w == "true" || w == "1" || w == "yes" || w == "on") return true;
  if (w == "false" || w == "0" || w == "no" || w == "off") return false;
  return std::nullopt;
}

void set_from_text(const Field& field, const FieldRef& slot, const std::vector<std::string>& words,
                   const std::string& where) {
  std::visit(FromText{field, words, where}, slot);
}

void set_from_json(const Field& field, const FieldRef& slot, const Json& value, const std::string& where) {
  if (value.is_null()) return;
  std::vector<std::string> words;
  if (value.is_array()) {
    if (!is_list(slot)) throw Error(Kind::kUsage, str(where, ": a single value is needed, not a list"));
    for (const auto& v : value) words.push_back(word_of(v, where));
  } else {
    words.push_back(word_of(value, where));
  }
  set_from_text(field, slot, words, where);
}

Json to_json(const FieldRef& slot) {
  return std::visit([](const auto* value) { return json_of(*value); }, slot);
}

std::string shown(const FieldRef& slot) {
  const Json value = to_json(slot);
  if (value.is_null()) return "(unset)";
  if (value.is_string()) return value.get<std::string>().empty() ? "(unset)" : value.get<std::string>();
  if (value.is_array() && value.empty()) return "(unset)";
  return value.dump();
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(" ,\t", at), text.size());
    if (end > at) out.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

}  // namespace atelier::app
