// The names that "&name;" may have in HTML.
#pragma once
#include <string_view>

namespace atelier::text {

// "name=HEX" or "name=HEX+HEX", the code points that it stands for, each followed by a blank; sorted.
// "name?=HEX": also without its semicolon.
extern const std::string_view kNamedReferences;

}  // namespace atelier::text
