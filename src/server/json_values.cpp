#include "server/json_values.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/field.h"
#include "base/quote.h"
#include "base/text.h"
#include "server/api_error.h"

namespace atelier::server {

void refuse(std::string_view field, const std::string& why, const char* code) {
  throw ApiError(400, code, str(field, ": ", why), std::string(field));
}

std::string text_of(std::string_view field, const Json& value) {
  if (!value.is_string()) refuse(field, "a text is expected");
  const std::string& text = value.get_ref<const std::string&>();
  if (!is_utf8(text) || text.find('\0') != std::string::npos)
    refuse(field, "UTF-8 without a zero byte is expected");
  return text;
}

int64_t integer_of(std::string_view field, const Json& value, int64_t least, int64_t most) {
  std::optional<int64_t> number;
  if (value.is_number_unsigned()) {
    if (value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)) number = value.get<int64_t>();
  } else if (value.is_number_integer()) {
    number = value.get<int64_t>();
  } else if (value.is_number_float()) {
    const double wide = value;
    if (std::floor(wide) == wide && std::abs(wide) < 1e15) number = static_cast<int64_t>(wide);
  } else if (value.is_string()) {
    number = to_integer(value.get_ref<const std::string&>());
  }
  if (!number || *number < least || *number > most)
    refuse(field, str("an integer from ", least, " to ", most, " is expected"));
  return *number;
}

double number_of(std::string_view field, const Json& value, double least, double most) {
  std::optional<double> number;
  if (value.is_number()) number = value.get<double>();
  if (value.is_string()) number = to_number(value.get_ref<const std::string&>());
  if (!number || !(*number >= least && *number <= most))
    refuse(field, str("a number from ", least, " to ", most, " is expected"));
  return *number;
}

bool switch_of(std::string_view field, const Json& value) {
  if (value.is_boolean()) return value;
  if (value.is_string()) {
    if (const auto known = to_switch(value.get_ref<const std::string&>())) return *known;
  }
  refuse(field, "true or false is expected");
}

std::string word_of(std::string_view field, const Json& value, std::span<const std::string_view> words) {
  const std::string word = text_of(field, value);
  if (std::find(words.begin(), words.end(), word) != words.end()) return word;
  std::string list;
  for (const auto w : words) list += str(list.empty() ? "" : ", ", w);
  refuse(field, str(in_quotes(word), " is none of ", list));
}

}  // namespace atelier::server
