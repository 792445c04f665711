// Character references of HTML in texts.
#pragma once
#include <string>
#include <string_view>

namespace atelier::text {

// "&amp;", "&#38;" and "&#x26;" become "&", as Python's html.unescape does it: names may lack their
// semicolon where HTML allows that, the longest that fits wins, and what is no reference stays. Well-formed
// UTF-8 stays so.
std::string html_unescaped(std::string_view text);

}  // namespace atelier::text
