#include "server/cost_model.h"

#include <gtest/gtest.h>

namespace atelier::server {
namespace {

request::Request picture(int side, int steps = 4) {
  request::Request r;
  r.prompt = "a fox";
  r.height = r.width = side;
  r.num_inference_steps = steps;
  return r;
}

TEST(CostModel_StepsAreCountedApart, FromEncodingAndDecoding) {
  CostModel costs;
  const auto r = picture(64);
  EXPECT_FALSE(costs.seconds(BatchWork({&r, 1})));
  costs.learn({&r, 1}, {{"denoise", 0.4}, {"encode", 1}, {"decode", 2}});
  const auto longer = picture(64, 40);
  EXPECT_NEAR(costs.seconds(BatchWork({&longer, 1})).value(), 7, 1e-9);
  EXPECT_NEAR(costs.least_seconds(BatchWork({&longer, 1})).value(), 7, 1e-9);
}

// A step of a small picture is mostly what every step takes: nothing is refused for its sake.
TEST(CostModel_SizesThatWereNotDrawn, AreBetweenWhatIsLikelyAndTheLeast) {
  CostModel costs;
  const auto small = picture(64), large = picture(256), larger = picture(512);
  costs.learn({&small, 1}, {{"denoise", 0.4}});
  EXPECT_NEAR(costs.seconds(BatchWork({&large, 1})).value(), 6.4, 1e-9);
  EXPECT_NEAR(costs.least_seconds(BatchWork({&large, 1})).value(), 1.6, 1e-9);
  costs.learn({&large, 1}, {{"denoise", 1.9}});
  EXPECT_NEAR(costs.seconds(BatchWork({&large, 1})).value(), 1.9, 1e-9);
  EXPECT_NEAR(costs.seconds(BatchWork({&larger, 1})).value(), 0.3 + 1.6 * 4, 1e-9) << "on the line";
  const auto least = picture(32);
  EXPECT_NEAR(costs.least_seconds(BatchWork({&least, 1})).value(), 0.1, 1e-9);
  EXPECT_NEAR(costs.seconds(BatchWork({&least, 1})).value(), 0.3 + 0.1 / 4, 1e-9);
}

TEST(CostModel_FramesAndBranches, Count) {
  auto r = picture(64);
  const double one = BatchWork({&r, 1}).work;
  r.num_frames = 17;
  EXPECT_EQ(BatchWork({&r, 1}).work, 5 * one);
  r.num_frames = 1, r.image = "a", r.strength = 0.5;
  EXPECT_EQ(BatchWork({&r, 1}).steps, 2);
  const std::vector two{r, r};
  EXPECT_EQ(BatchWork(two).work, 2 * one);
  EXPECT_EQ(BatchWork(two).steps, 2) << "drawn together";
}

}  // namespace
}  // namespace atelier::server
