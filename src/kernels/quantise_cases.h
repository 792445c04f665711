// Data for the tests of quantise.h, shared by both implementations' tests.
#pragma once
#include "kernels/quantise.h"
#include "kernels/test_support.h"

namespace atelier::kernels::testing {

// What a kernel wrote.
struct QuantisedBytes {
  std::vector<uint8_t> rows;
  std::vector<float> scales;
  QuantisedBytes(int64_t count, int64_t channels)
      : rows(static_cast<size_t>(count * channels), 0xa5), scales(static_cast<size_t>(count), -1) {}
  E4m3Rows out() { return {rows.data(), scales.data()}; }
};

// Segments of one row, in channels; where gelu is still to come; how many elements late the data starts, and
// how many more than channels lie between rows.
struct SegmentCase {
  std::vector<int64_t> channels;
  std::vector<bool> gelu;
  int64_t rows = 3, skew = 0, gap = 0;
  int64_t total() const {
    int64_t n = 0;
    for (const int64_t c : channels) n += c;
    return n;
  }
};
inline const std::vector<SegmentCase> kSegments = {
    {{16}, {false}},
    {{1}, {false}, 2},
    {{37}, {true}},
    {{64}, {true}, 5, 0, 16},
    {{64}, {false}, 5, 1},
    {{48, 208}, {false, true}, 4},
    {{7, 9, 3}, {true, false, true}, 4, 0, 2},
    {{16, 0, 32, 16}, {false, false, true, false}},
    {{3072, 12288}, {false, true}, 3},
    {{12288}, {true}, 2},
    {{5120}, {false}, 2},
    {{20480}, {true}, 2},
    {{40000}, {true}, 1},
};

// Numbers of many magnitudes, as outliers make them.
inline Buffer spread(ElementType type, int64_t count, unsigned seed) {
  Buffer b = normal(type, count, seed);
  std::mt19937 engine(seed + 1);
  for (int64_t i = 0; i < count; ++i) b.set(i, b[i] * std::ldexp(1.0, static_cast<int>(engine() % 12) - 6));
  return b;
}

inline std::vector<Buffer> data_of(const SegmentCase& c, ElementType type) {
  std::vector<Buffer> all;
  for (size_t i = 0; i < c.channels.size(); ++i)
    all.push_back(spread(type, c.rows * (c.channels[i] + c.gap) + c.skew, static_cast<unsigned>(3 * i + 1)));
  return all;
}

// address(buffer, element): where it lies.
template <class F>
std::vector<RowSegment> segments_of(const SegmentCase& c, const std::vector<Buffer>& data, const F& address) {
  std::vector<RowSegment> all;
  for (size_t i = 0; i < data.size(); ++i)
    all.push_back({address(data[i], c.skew), c.channels[i], c.channels[i] + c.gap, c.gelu[i]});
  return all;
}

}  // namespace atelier::kernels::testing
