// Small checks on text from files that anyone may have written.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atelier {

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

// ASCII letters in lower case.
std::string lower(std::string_view text);

// How many letters must be put in, left out or exchanged.
size_t edit_distance(std::string_view a, std::string_view b);

// '*' stands for any run of characters, '?' for one.
bool glob_matches(std::string_view pattern, std::string_view text);
bool any_glob_matches(std::span<const std::string_view> patterns, std::string_view text);

// The candidates closest to `name` by edit distance, closest first; none that differ in more than half.
std::vector<std::string> nearest(std::string_view name, std::span<const std::string> candidates, int count);

}  // namespace atelier
