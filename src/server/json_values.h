// Values of a client's JSON, or texts of its form in their place. All throw ApiError (400) naming the field.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"

namespace atelier::server {

[[noreturn]] void refuse(std::string_view field, const std::string& why, const char* code = "invalid_value");
std::string text_of(std::string_view field, const Json& value);  // UTF-8 without a zero byte
int64_t integer_of(std::string_view field, const Json& value, int64_t least, int64_t most);
double number_of(std::string_view field, const Json& value, double least, double most);
bool switch_of(std::string_view field, const Json& value);
std::string word_of(std::string_view field, const Json& value, std::span<const std::string_view> words);

}  // namespace atelier::server
