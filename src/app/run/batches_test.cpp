// How pictures are shared out over groups, batch by batch.
#include "app/run/batches.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace atelier::app {
namespace {

std::vector<size_t> sizes(size_t requests, int batch_size, int data) {
  std::vector<size_t> out;
  const request::RequestList list{std::vector<request::Request>(requests)};
  for (const auto& batch : Batches(list, batch_size, data)) out.push_back(batch.size());
  return out;
}

TEST(Batches, GivesEachGroupItsPartOfTheBatch) {
  using Sizes = std::vector<size_t>;
  EXPECT_EQ(sizes(4, 4, 4), (Sizes{1, 1, 1, 1}));
  EXPECT_EQ(sizes(8, 8, 2), (Sizes{4, 4}));
  EXPECT_EQ(sizes(10, 8, 2), (Sizes{4, 4, 1, 1}));
  EXPECT_EQ(sizes(5, 8, 2), (Sizes{3, 2}));
  EXPECT_EQ(sizes(3, 1, 2), (Sizes{1, 1, 1}));
  EXPECT_TRUE(sizes(0, 8, 2).empty());
}

TEST(Batches, LeavesNoGroupMoreThanOnePictureBehind) {
  for (int data = 1; data <= 5; ++data) {
    for (int batch = 1; batch <= 12; ++batch) {
      for (size_t requests = 1; requests <= 40; ++requests) {
        // groups of one speed take from the queue: whoever is first free, first served
        std::vector<size_t> drawn(static_cast<size_t>(data), 0);
        size_t all = 0;
        for (const size_t n : sizes(requests, batch, data)) {
          *std::min_element(drawn.begin(), drawn.end()) += n;
          all += n;
          EXPECT_LE(n, static_cast<size_t>(std::max(1, batch / data)));
        }
        ASSERT_EQ(all, requests);
        const auto [least, most] = std::minmax_element(drawn.begin(), drawn.end());
        ASSERT_LE(*most - *least, 1u) << requests << " pictures, batch " << batch << ", data " << data;
      }
    }
  }
}

request::Request of_height(int height, int64_t index) {
  request::Request r;
  r.height = height;
  r.index = index;
  return r;
}

TEST(Batches, HoldNeighboursOfOneShapeAndComeAsOftenAsAsked) {
  request::RequestList list;
  for (const int height : {8, 8, 8, 16, 16, 8, 8}) list.push_back(of_height(height, std::ssize(list)));
  std::vector<std::vector<int64_t>> drawn;
  const auto source = Batches(list, 2, 1, 2).source();
  for (auto batch = source(); !batch.empty(); batch = source()) {
    drawn.emplace_back();
    for (const auto& r : batch) drawn.back().push_back(r.index);
  }
  const std::vector<std::vector<int64_t>> once{{0, 1}, {2}, {3, 4}, {5, 6}};
  auto twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  EXPECT_EQ(drawn, twice);
  EXPECT_TRUE(source().empty());
}

}  // namespace
}  // namespace atelier::app
