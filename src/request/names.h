// Names of output files, relative to the output folder. Nothing here can name a file outside of it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace atelier::request {

// "000012.png", with a sub-index "000012_03.png"; suffix with its dot.
std::string default_name(int64_t index, std::optional<int> sub, std::string_view suffix);

// A name from a prompt file: .png, .jpg, .jpeg (and the suffix itself) stay, in lower case; anything else
// gets the suffix appended; the sub-index goes in front of it: "a/b" -> "a/b_01.png". Throws Error(kItem) as
// check_name does.
std::string custom_name(std::string_view name, std::optional<int> sub, std::string_view suffix);

// Throws Error(kItem) naming the rule unless the name is relative, has no "..", no empty or overlong part, no
// control character, is UTF-8 and does not begin a part with the prefix that temporary files have.
void check_name(std::string_view name);

inline constexpr std::string_view kTemporaryPrefix = ".atelier-";

}  // namespace atelier::request
