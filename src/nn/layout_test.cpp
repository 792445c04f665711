// Which tokens a rank holds: every token once, cuts that differ by one unit at most, text with patch 0.
#include "nn/layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "nn/call_context.h"

namespace atelier::nn {
namespace {

struct Cut {
  int64_t units;
  int64_t unit;
  int patches, parts;
};

// Units from 0 to primes, with fewer units than patches and ranks among them.
std::vector<Cut> cuts() {
  std::vector<Cut> all;
  for (int64_t units : {0, 1, 2, 7, 16, 97}) {
    for (int64_t unit : {1, 3}) {
      for (int patches : {1, 2, 3, 8}) {
        for (int parts : {1, 2, 5, 8}) all.push_back({units, unit, patches, parts});
      }
    }
  }
  return all;
}

Layout layout_of(const Cut& c) {
  return {.patches = {c.units * c.unit, c.patches}, .seq_parts = c.parts, .unit = c.unit};
}

// How often each token is held.
void add(std::vector<int>& counts, const std::vector<Range>& ranges) {
  for (const Range& r : ranges) {
    ASSERT_GE(r.begin, 0);
    ASSERT_LE(r.end(), static_cast<int64_t>(counts.size()));
    for (int64_t i = r.begin; i < r.end(); ++i) ++counts[static_cast<size_t>(i)];
  }
}

bool all_ones(const std::vector<int>& counts) {
  return std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; });
}

TEST(Layout, RanksAndPatchesHoldEveryTokenOnce) {
  for (const Cut& c : cuts()) {
    const Layout l = layout_of(c);
    std::vector<int> by_patch(static_cast<size_t>(l.patches.total)), whole = by_patch;
    for (int rank = 0; rank < c.parts; ++rank) {
      for (int p = 0; p < c.patches; ++p) add(by_patch, l.held(rank, p));
      add(whole, l.held(rank, std::nullopt));
    }
    EXPECT_TRUE(all_ones(by_patch)) << c.units << " " << c.unit << " " << c.patches << " " << c.parts;
    EXPECT_TRUE(all_ones(whole)) << c.units << " " << c.unit << " " << c.patches << " " << c.parts;
  }
}

TEST(Layout, TheLastUnitMayBeShort) {
  for (const int64_t total : {1, 4, 9, 10, 12}) {
    for (const int parts : {1, 2, 3}) {
      const Layout l{.patches = {total, 1}, .seq_parts = parts, .unit = 4};
      std::vector<int> counts(static_cast<size_t>(total));
      for (int rank = 0; rank < parts; ++rank) {
        add(counts, l.held(rank, std::nullopt));
        for (const Range& r : l.held(rank, std::nullopt)) {
          EXPECT_TRUE(r.size == 0 || r.begin % 4 == 0) << total << " over " << parts;
        }
      }
      EXPECT_TRUE(all_ones(counts)) << total << " over " << parts;
    }
  }
}

TEST(Layout, PatchesOfARankMakeUpWhatItHoldsWhole) {
  for (const Cut& c : cuts()) {
    const Layout l = layout_of(c);
    for (int rank = 0; rank < c.parts; ++rank) {
      std::vector<Range> pieces;
      for (int p = 0; p < c.patches; ++p) {
        for (const Range& r : l.held(rank, p)) pieces.push_back(r);
      }
      EXPECT_EQ(pieces, l.held(rank, std::nullopt));
    }
  }
}

TEST(Layout, SharesDifferByOneUnitAtMostAndNeverSplitOne) {
  for (const Cut& c : cuts()) {
    const Layout l = layout_of(c);
    for (int p = 0; p < c.patches; ++p) {
      int64_t least = l.patches.total, most = 0;
      for (int rank = 0; rank < c.parts; ++rank) {
        const int64_t n = l.count(rank, p);
        EXPECT_EQ(n % c.unit, 0);
        least = std::min(least, n), most = std::max(most, n);
        for (const Range& r : l.held(rank, p)) EXPECT_EQ(r.begin % c.unit, 0);
      }
      EXPECT_LE(most - least, c.unit);
    }
  }
}

TEST(Layout, TextRidesWithTheFirstPatch) {
  const Layout text{.patches = {7, 4}, .seq_parts = 3, .pinned_to_first_patch = true};
  std::vector<int> counts(7);
  for (int rank = 0; rank < 3; ++rank) {
    add(counts, text.held(rank, 0));
    EXPECT_EQ(text.held(rank, 0), text.held(rank, std::nullopt));
    for (int p = 1; p < 4; ++p) EXPECT_EQ(text.count(rank, p), 0);
  }
  EXPECT_TRUE(all_ones(counts));
}

TEST(Layout, AFrameAddsItsStreams) {
  CallContext f;
  f.streams = {{.patches = {7, 2}, .seq_parts = 2, .pinned_to_first_patch = true},
               {.patches = {9, 2}, .seq_parts = 2}};
  const int both[] = {0, 1}, image[] = {1};
  EXPECT_EQ(f.tokens(both, 0, std::nullopt), 4 + 3 + 2);
  EXPECT_EQ(f.tokens(both, 0, 0), 4 + 3);
  EXPECT_EQ(f.tokens(both, 1, 0), 3 + 2);
  EXPECT_EQ(f.tokens(both, 1, 1), 2);
  EXPECT_EQ(f.tokens(image, 0, 1), 2);
}

}  // namespace
}  // namespace atelier::nn
