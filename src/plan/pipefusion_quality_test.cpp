// The table of measured quality is that of the result file, and the nearest row is no milder than what is
// asked for.
#include "plan/pipefusion_quality.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"

namespace atelier::plan {
namespace {

Json rows() {
  return read_json("results/pipefusion_quality.json").at("rows");
}

TEST(Quality, TableIsThatOfTheResultFile) {
  size_t found = 0;
  for (const auto& row : rows()) {
    const int steps = row.at("steps"), stages = row.at("stages");
    const double right = row.at("right");
    if (stages == 1) EXPECT_EQ(right_of_one_rank(steps), right);
    for (const auto& m : measured_quality()) {
      const bool is_same =
          stages == 2 && m.steps == steps && m.patches == row.at("patches") && m.warmup == row.at("warmup");
      if (!is_same) continue;
      ++found;
      EXPECT_EQ(m.psnr, row.at("psnr_median").get<double>());
      EXPECT_EQ(m.right, right);
    }
  }
  EXPECT_EQ(found, measured_quality().size());
  EXPECT_GE(found, 12u);
}

TEST(Quality, ExactSettingsOfTheResultFileDrewTheSamePictures) {
  int exact = 0, twins = 0;
  for (const auto& row : rows()) {
    const bool all_warm = row.at("warmup") >= row.at("steps");
    if (row.at("sync") || all_warm) {
      ++exact;
      EXPECT_LE(row.at("largest_difference_levels"), 1) << row;
    }
    if (row.contains("identical_to_two_stages")) ++twins;
  }
  EXPECT_GE(exact, 2);
  EXPECT_GE(twins, 2);
}

TEST(Quality, NearestRowIsNoMilder) {
  const auto expect = [](const MeasuredQuality& m, int steps, int patches, int warmup) {
    EXPECT_EQ(m.steps, steps);
    EXPECT_EQ(m.patches, patches);
    EXPECT_EQ(m.warmup, warmup);
  };
  expect(nearest_measured(4, 2, 1), 4, 2, 1);
  expect(nearest_measured(28, 3, 3), 12, 4, 2);
  expect(nearest_measured(1, 16, 0), 4, 8, 0);
  expect(nearest_measured(50, 8, 20), 12, 8, 4);
}

}  // namespace
}  // namespace atelier::plan
