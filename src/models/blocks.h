// Which blocks of a model are built here.
#pragma once
#include <algorithm>
#include <span>

#include "base/partition.h"

namespace atelier::models {

inline bool owns(std::span<const Range> blocks, int i) {
  return std::any_of(blocks.begin(), blocks.end(),
                     [i](const Range& r) { return i >= r.begin && i < r.end(); });
}

}  // namespace atelier::models
