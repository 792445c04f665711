#include "kernels/scatter_rows.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "kernels/scatter_cases.h"

namespace atelier::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this room's tests

TEST(ScatterRows, EachRowGoesToItsPlaceAndNothingElseChanges) {
  for (const auto& c : kScatterCases) {
    ScatterData data(c);
    std::vector<void*> targets;
    for (auto& to : data.to) targets.push_back(to.data());
    scatter_rows({}, scatter_of(c, data.from.data(), targets));
    EXPECT_EQ(data.to, data.expected) << c.row_bytes;
  }
}

TEST(ScatterRows, RowsThatWouldOverlapAreRefused) {
  char from[8] = {}, to[8] = {};
  RowScatter s{.from = from, .row_bytes = 4, .targets = {{to, 2, 3}}, .target_count = 1};
  EXPECT_THROW(scatter_rows({}, s), std::logic_error);
  s.targets[0] = {nullptr, 1, 4};
  EXPECT_THROW(scatter_rows({}, s), std::logic_error);
}

}  // namespace
}  // namespace atelier::kernels
