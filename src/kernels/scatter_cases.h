// Cases of scatter_rows, shared by the tests of both implementations.
#pragma once
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/scatter_rows.h"

namespace atelier::kernels::testing {

struct ScatterCase {
  int64_t row_bytes, gap,
      skew;  // gap: between two rows of a target; skew: bytes by which source and targets start late
  std::vector<int64_t> rows;  // of each target
};

inline const std::vector<ScatterCase> kScatterCases = {
    {3072, 3072, 0, {5, 4}},   {16, 0, 0, {1}},          {16, 48, 0, {0, 3, 0, 2}}, {48, 16, 2, {7, 1}},
    {6, 4, 0, {2, 2, 2}},      {5, 3, 1, {4, 0, 9}},     {8192, 32, 0, {300, 1}},   {4096, 12, 0, {3, 3}},
    {2, 2, 0, {70, 11, 1, 9}}, {12288, 0, 0, {1, 2, 3}},
};

struct ScatterData {
  std::vector<uint8_t> from;
  std::vector<std::vector<uint8_t>> to, expected;

  explicit ScatterData(const ScatterCase& c) {
    const int64_t all = std::accumulate(c.rows.begin(), c.rows.end(), int64_t{0});
    for (int64_t i = 0; i < c.skew + all * c.row_bytes; ++i)
      from.push_back(static_cast<uint8_t>(i * 31 + i / 251));
    int64_t row = 0;
    for (const int64_t rows : c.rows) {
      to.emplace_back(static_cast<size_t>(c.skew + rows * (c.row_bytes + c.gap) + 1), uint8_t{0xee});
      expected.push_back(to.back());
      for (int64_t i = 0; i < rows; ++i, ++row) {
        std::memcpy(expected.back().data() + c.skew + i * (c.row_bytes + c.gap),
                    from.data() + c.skew + row * c.row_bytes, static_cast<size_t>(c.row_bytes));
      }
    }
  }
};

// source, targets: addresses of from and of each of to.
inline RowScatter scatter_of(const ScatterCase& c, const void* source, const std::vector<void*>& targets) {
  RowScatter s{.from = static_cast<const char*>(source) + c.skew,
               .row_bytes = c.row_bytes,
               .targets = {},
               .target_count = static_cast<int>(c.rows.size())};
  for (size_t t = 0; t < targets.size(); ++t)
    s.targets[t] = {static_cast<char*>(targets[t]) + c.skew, c.rows[t], c.row_bytes + c.gap};
  return s;
}

}  // namespace atelier::kernels::testing
