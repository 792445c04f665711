// Values of fields from words and from JSON.
#include "base/field.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"

namespace atelier {
namespace {

constexpr size_t kShown = 60;  // bytes of a value in a message

// A path may hold any bytes, JSON only UTF-8: others go as hexadecimal digits behind a mark that no
// path begins with.
constexpr char kBytesMark = '\x01';

std::string json_text(const std::filesystem::path& path) {
  const std::string& bytes = path.native();
  if (is_utf8(bytes) && !bytes.starts_with(kBytesMark)) return bytes;
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out(1, kBytesMark);
  for (const unsigned char c : bytes) out += {kDigits[c >> 4], kDigits[c & 15]};
  return out;
}

std::filesystem::path path_of(const std::string& text) {
  if (!text.starts_with(kBytesMark)) return text;
  std::string bytes;
  for (size_t i = 1; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

template <class T>
struct Inner {
  using Type = T;
};
template <class T>
struct Inner<std::optional<T>> {
  using Type = T;
};

// "an integer from 1 to 65536", for the type of a value.
template <class T>
std::string wanted(const Field& f) {
  if (!f.choices.empty()) {
    std::string list;
    for (const auto& word : words_of(f.choices)) list += (list.empty() ? "one of " : ", ") + word;
    return list;
  }
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  std::string out = std::is_floating_point_v<T> ? "a finite number" : "an integer";
  const double least = std::is_unsigned_v<T> && f.least < 0 ? 0 : f.least;
  if (f.most != kNoLimit) return str(out, " from ", least, " to ", static_cast<int64_t>(f.most));
  return least == -kNoLimit ? out : str(out, " of at least ", least);
}

[[noreturn]] void refuse(const Field& field, const std::string& where, const std::string& must,
                         const std::string& found) {
  throw Error(Kind::kUsage,
              str(where, where.empty() ? "" : ": ", field.name, " must be ", must, ", not ", found));
}

std::string in_quotes(std::string_view word) {
  return str('"', word.substr(0, kShown), word.size() > kShown ? "..." : "", '"');
}

template <class T>
std::optional<T> number(std::string_view word) {
  word = trim(word);
  if (word.size() > 1 && word[0] == '+') word.remove_prefix(1);
  if constexpr (std::is_floating_point_v<T>) {
    return to_number(word);
  } else if constexpr (std::is_unsigned_v<T>) {
    return to_unsigned(word);
  } else {
    const auto value = to_integer(word);
    if (!value || *value < std::numeric_limits<T>::min() || *value > std::numeric_limits<T>::max())
      return std::nullopt;
    return static_cast<T>(*value);
  }
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
  template <class T>
  T parsed(const std::string& word) const {
    std::optional<T> value;
    if constexpr (std::is_same_v<T, bool>) {
      value = to_switch(word);
    } else {
      value = number<T>(word);
    }
    if (!value) refuse(field, where, wanted<T>(field), in_quotes(word));
    return *value;
  }
  std::string chosen(const std::string& word) const {
    if (field.choices.empty()) return word;
    const auto known = words_of(field.choices);
    std::string asked = lower(word);
    if (field.choice_of) asked = field.choice_of(asked);
    if (std::find(known.begin(), known.end(), asked) == known.end())
      refuse(field, where, wanted<std::string>(field), in_quotes(word));
    return asked;
  }

  template <class T>
  void operator()(T* v) const {
    if constexpr (requires { v->reset(); }) {
      if (!field.unset.empty() && one() == field.unset) return v->reset();
    }
    *v = parsed<typename Inner<T>::Type>(one());
  }
  void operator()(std::string* v) const { *v = chosen(one()); }
  void operator()(std::optional<std::string>* v) const { *v = chosen(one()); }
  void operator()(std::filesystem::path* v) const { *v = path_of(one()); }
  std::vector<int> numbers() const {
    std::vector<int> all;
    for (const auto& word : words) {
      for (const auto& part : words_of(word)) all.push_back(parsed<int>(part));
    }
    return all;
  }
  void operator()(std::vector<int>* v) const { *v = numbers(); }
  void operator()(std::optional<std::array<int, 2>>* v) const {
    const auto given = numbers();
    if (given.size() != 2) refuse(field, where, "two numbers", str(given.size(), " of them"));
    *v = {given[0], given[1]};
  }
  void operator()(std::vector<std::string>* v) const { *v = words; }
  void operator()(std::optional<std::vector<std::string>>* v) const { *v = words; }
};

std::string word_of(const Field& field, const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean() || value.is_number()) return value.dump();
  refuse(field, where, "a plain value", shown(value));
}

// "1.0,0.5" for [1.0, 0.5]: several numbers of a field that is text.
std::string series_of(const Field& field, const Json& values, const std::string& where) {
  std::string text;
  for (const auto& value : values) {
    if (!value.is_number()) refuse(field, where, "numbers", str("a list with ", shown(value)));
    text += (text.empty() ? "" : ",") + value.dump();
  }
  return text;
}

struct Check {
  const Field& field;
  const std::string& where;

  template <class T>
  void number(T value) const {
    const auto wide = static_cast<double>(value);
    if (wide < field.least || wide > field.most) refuse(field, where, wanted<T>(field), str(value));
  }
  void text(const std::string& value) const {
    if (static_cast<double>(value.size()) > field.most)
      refuse(field, where, str("text of at most ", static_cast<int64_t>(field.most), " bytes"),
             str("of ", value.size()));
    if (value.find('\0') != std::string::npos) refuse(field, where, "text without NUL characters", "this");
  }
  void operator()(const bool*) const {}
  void operator()(const std::optional<bool>*) const {}
  void operator()(const std::filesystem::path*) const {}
  void operator()(const std::string* v) const { text(*v); }
  template <class T>
  void operator()(const std::vector<T>* v) const {
    for (const auto& one : *v) (*this)(&one);
  }
  void operator()(const std::array<int, 2>* v) const {
    for (const int one : *v) number(one);
  }
  template <class T>
  void operator()(const std::optional<T>* v) const {
    if (*v) (*this)(&**v);
  }
  template <class T>
  void operator()(const T* v) const {
    number(*v);
  }
};

template <class T>
Json plain(const T& value) {
  return value;
}
template <class T>
Json plain(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}
Json plain(const std::filesystem::path& value) {
  return json_text(value);
}

}  // namespace

bool is_switch(const FieldRef& slot) {
  return std::holds_alternative<bool*>(slot) || std::holds_alternative<std::optional<bool>*>(slot);
}

bool is_list(const FieldRef& slot) {
  return std::holds_alternative<std::vector<int>*>(slot) ||
         std::holds_alternative<std::optional<std::array<int, 2>>*>(slot) ||
         std::holds_alternative<std::vector<std::string>*>(slot) ||
         std::holds_alternative<std::optional<std::vector<std::string>>*>(slot);
}

bool is_text(const FieldRef& slot) {
  return std::holds_alternative<std::string*>(slot) ||
         std::holds_alternative<std::optional<std::string>*>(slot);
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
  if (value.is_array() && is_text(slot) && field.effect == Effect::kShape)
    return set_from_text(field, slot, {series_of(field, value, where)}, where);
  if (value.is_array()) {
    if (!is_list(slot)) refuse(field, where, "a single value", "a list");
    for (const auto& v : value) words.push_back(word_of(field, v, where));
  } else {
    words.push_back(word_of(field, value, where));
  }
  set_from_text(field, slot, words, where);
}

void check_limits(const Field& field, const FieldRef& slot, const std::string& where) {
  std::visit(Check{field, where}, slot);
}

Json json_of(const FieldRef& slot) {
  return std::visit([](const auto* value) { return plain(*value); }, slot);
}

Json fields_to_json(const Fields& fields) {
  Json out = Json::object();
  fields([&](const Field& field, const FieldRef& slot) {
    if (Json value = json_of(slot); !value.is_null()) out[std::string(field.name)] = std::move(value);
  });
  return out;
}

void fields_from_json(const Fields& fields, const Json& json) {
  if (!json.is_object()) throw Error(Kind::kUsage, str("an object with fields is needed, not ", shown(json)));
  fields([&](const Field& field, const FieldRef& slot) {
    if (const auto at = json.find(field.name); at != json.end()) set_from_json(field, slot, *at, "");
  });
}

std::string shown(const FieldRef& slot) {
  const Json value = json_of(slot);
  if (value.is_null()) return "(unset)";
  if (value.is_string()) return value.get<std::string>().empty() ? "(unset)" : value.get<std::string>();
  if (value.is_array() && value.empty()) return "(unset)";
  return value.dump();
}

std::string shown(const Json& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kShown) text = text.substr(0, kShown - 3) + "...";
  return text;
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

}  // namespace atelier
