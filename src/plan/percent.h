// A share as people read it.
#pragma once
#include <cmath>

namespace atelier::plan {

// In whole per cent.
inline int percent(double share) {
  return static_cast<int>(std::lround(100 * share));
}

}  // namespace atelier::plan
