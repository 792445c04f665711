// Small checks on text from files that anyone may have written.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::jobs {

inline constexpr int kMaxDepth = 64;  // of nested JSON: copies and dumps of it recurse

std::string_view trim(std::string_view text);  // ASCII white space
bool is_utf8(std::string_view text);           // no overlong forms, no surrogates
// Cuts at \n, \r\n and \r; a final line end does not make an empty last line.
std::vector<std::string_view> split_lines(std::string_view text);
// How deep arrays and objects nest, strings left out. Exact for valid JSON.
int json_depth(std::string_view json);
// The whole text as a number; none for anything else. "1024.0" is an integer too.
std::optional<int64_t> to_integer(std::string_view text);
std::optional<uint64_t> to_unsigned(std::string_view text);
std::optional<double> to_number(std::string_view text);

}  // namespace atelier::jobs
