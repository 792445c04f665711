#include "app/run/batch_search.h"

#include <gtest/gtest.h>

#include <set>

namespace atelier::app {
namespace {

TEST(BatchSearch, FindsTheEdgeWhereverItIs) {
  for (int64_t edge = 0; edge <= 40; ++edge) {
    std::set<int64_t> tried;
    const auto found = largest_that_fits(64, [&](int64_t size) {
      EXPECT_TRUE(tried.insert(size).second) << size << " twice";
      EXPECT_TRUE(size >= 1 && size <= 64);
      return size <= edge ? Tried{.fits = true, .pictures_per_second = size == 4 ? 9.0 : 1.0}
                          : Tried{.reason = std::to_string(size)};
    });
    EXPECT_EQ(found.size, edge);
    EXPECT_EQ(found.next.reason, std::to_string(edge + 1));
    if (edge >= 4) EXPECT_EQ(found.fastest, 4);
    EXPECT_LE(tried.size(), 13u);
  }
}

TEST(BatchSearch, EndsAtTheMost) {
  for (const int64_t most : {1, 2, 3, 10, 64}) {
    const auto found = largest_that_fits(most, [&](int64_t size) {
      EXPECT_LE(size, most);
      return Tried{.fits = true};
    });
    EXPECT_EQ(found.size, most);
    EXPECT_TRUE(found.next.reason.empty());
  }
}

}  // namespace
}  // namespace atelier::app
