// Names and shapes as they stand in messages. What comes from a file is never printed raw.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace atelier {

// In quotes, control characters replaced, at most 160 characters.
std::string in_quotes(std::string_view text);
// As a POSIX shell reads it back: as it stands where nothing in it is special, in single quotes elsewhere;
// with control characters and bytes that are not UTF-8 as in $'\x1b[31m'.
std::string shell_word(std::string_view text);
// "[3, 4]"
std::string shape_text(std::span<const int64_t> shape);
// "1.5 GB", "312 bytes"
std::string size_text(int64_t bytes);
// "a, b, c and 4 more"
std::string list_text(std::span<const std::string> items, size_t most);

}  // namespace atelier
