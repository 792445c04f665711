// Cuts [0, total) into runs whose sizes differ by at most one. Never pads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

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

// How many all of them hold.
constexpr int64_t size_of_all(std::span<const Range> ranges) {
  int64_t n = 0;
  for (const Range r : ranges) n += r.size;
  return n;
}

// The rows of `width` elements that hold some of these elements.
constexpr Range rows_holding(Range elements, int64_t width) {
  if (elements.size == 0) return {0, 0};
  const int64_t first = elements.begin / width;
  return {first, (elements.end() + width - 1) / width - first};
}

constexpr int64_t sum(std::span<const int64_t> values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
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
