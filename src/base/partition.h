// Cuts [0, total) into runs whose sizes differ by at most one. Never pads.
#pragma once
#include <algorithm>
#include <cstdint>

namespace atelier {

struct Range {
  int64_t begin = 0, size = 0;
  constexpr int64_t end() const { return begin + size; }
  constexpr bool operator==(const Range&) const = default;
};

// What two ranges share; empty ones may begin anywhere.
constexpr Range intersection(Range a, Range b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max<int64_t>(0, std::min(a.end(), b.end()) - begin)};
}

struct Partition {
  int64_t total = 0;
  int parts = 1;
  // The i-th run; the first total % parts runs are one longer.
  constexpr Range operator[](int i) const {
    const auto at = [&](int64_t k) { return total / parts * k + std::min<int64_t>(k, total % parts); };
    return {at(i), at(i + 1) - at(i)};
  }
};

// heads x width, or features x 1: a cut never splits the unit.
struct Dim {
  int64_t count = 0, unit = 1;
  constexpr int64_t size() const { return count * unit; }
};

}  // namespace atelier
