// The version of the program, as CMakeLists.txt has it.
#pragma once

namespace atelier {
inline constexpr const char* kVersion = "0.1.0";
}
