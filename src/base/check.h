// ENSURE is for bugs only: no request and no file may reach it.
#pragma once
#include <string_view>

namespace atelier {
[[noreturn]] void check_failed(std::string_view condition, std::string_view file, int line);
}  // namespace atelier

#define ENSURE(condition) \
  ((condition) ? static_cast<void>(0) : ::atelier::check_failed(#condition, __FILE__, __LINE__))
