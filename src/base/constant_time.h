// Comparing what nobody may guess piece by piece.
#pragma once
#include <cstddef>
#include <string_view>

namespace atelier {

// Does not end at the first difference: the time tells nothing but whether the lengths differ.
inline bool is_equal_in_constant_time(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned>(static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]));
  return difference == 0;
}

}  // namespace atelier
