// The gate: what counts as worse, and what does not.
#include "bench/compare.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "bench/testing.h"

namespace atelier::bench {
namespace {

const Delta& found(const std::vector<Delta>& all, const std::string& part, const std::string& quantity) {
  for (const auto& c : all) {
    if (c.name.find(part) != std::string::npos && c.quantity.find(quantity) != std::string::npos) return c;
  }
  throw std::out_of_range(part);
}

std::vector<Delta> compared(const Json& before, const Json& after) {
  return compare(entries_of(before, "a"), entries_of(after, "b"), {});
}

TEST(Compare, TheSameResultIsNoRegression) {
  const auto result = result_for_test();
  const auto all = compared(result, result);
  EXPECT_FALSE(is_regression(all));
  for (const auto& c : all) EXPECT_EQ(c.outcome, Outcome::kSame) << line_of(c);
}

TEST(Compare, SlowerThanToleranceAndNoiseIsWorse) {
  const auto before = result_for_test();
  auto after = before;
  auto& ms = row_of(after, "ulysses_2-1024x1024-b1")["measured"]["ms_per_step"];
  const double median = ms["median"];
  ms = series_for_test(1.04 * median);
  EXPECT_FALSE(is_regression(compared(before, after))) << "within five per cent";
  ms = series_for_test(1.08 * median);
  const auto all = compared(before, after);
  EXPECT_TRUE(is_regression(all));
  EXPECT_EQ(found(all, "ulysses_2", "ms_per_step").outcome, Outcome::kWorse);
  EXPECT_NE(line_of(found(all, "ulysses_2", "ms_per_step")).find("8 % worse"), std::string::npos);
  ms["min"] = 0.8 * median;
  ms["p90"] = 1.2 * median;
  EXPECT_FALSE(is_regression(compared(before, after)))
      << "runs that scatter by more than the change prove nothing";
  EXPECT_EQ(found(compared(after, before), "ulysses_2", "ms_per_step").outcome, Outcome::kSame);
}

TEST(Compare, MoreMemoryAndFewerPicturesAreWorse) {
  const auto before = result_for_test();
  auto after = before;
  auto& m = row_of(after, "data_1-1024x1024-b2")["measured"];
  m["peak_memory"][0]["device_bytes"] = 22LL << 30;
  m["pictures_per_second"] = m["pictures_per_second"].get<double>() / 2;
  const auto all = compared(before, after);
  EXPECT_EQ(found(all, "data_1-1024x1024-b2", "peak_bytes").outcome, Outcome::kWorse);
  EXPECT_EQ(found(all, "data_1-1024x1024-b2", "pictures_per_second").outcome, Outcome::kWorse);
  EXPECT_EQ(found(compared(after, before), "data_1-1024x1024-b2", "pictures_per_second").outcome,
            Outcome::kBetter);
}

TEST(Compare, WhatIsGoneFailsTheGate) {
  const auto before = result_for_test();
  auto after = before;
  auto& row = row_of(after, "ring_2-1024x1024-b1");
  row["status"] = status::kFailed, row["why"] = "a rank died", row.erase("measured");
  const auto all = compared(before, after);
  EXPECT_TRUE(is_regression(all));
  EXPECT_NE(found(all, "ring_2", "a rank died").name, "");
  EXPECT_FALSE(is_regression(compared(after, before))) << "more than before is fine";
}

TEST(Compare, FewRunsDecideNothing) {
  const auto before = result_for_test();
  auto after = before;
  auto& ms = row_of(after, "ulysses_2-1024x1024-b1")["measured"]["ms_per_step"];
  ms = series_for_test(900);
  ms["count"] = 1;
  EXPECT_FALSE(is_regression(compared(before, after)));
  EXPECT_EQ(found(compared(before, after), "ulysses_2", "ms_per_step").outcome, Outcome::kTooFewRuns);
}

TEST(Compare, TracedRowsAreNoTimes) {
  auto before = result_for_test();
  row_of(before, "ulysses_2-1024x1024-b1")["asked"]["topics"] = {"traffic"};
  for (const auto& e : entries_of(before, "a"))
    EXPECT_EQ(e.name.find("ulysses_2-1024x1024-b1"), std::string::npos);
}

TEST(Compare, OtherDevicesAndOtherRunsAreRefused) {
  const auto before = result_for_test();
  auto after = before;
  after["machine"]["device"] = "NVIDIA A100";
  EXPECT_THROW(compared(before, after), Error);
  after = before;
  after["asked"]["model"] = "another";
  EXPECT_THROW(compared(before, after), Error);
  EXPECT_THROW(entries_of(Json::object(), "x"), Error);
}

TEST(Compare, ReadsPlainRowsInListsAndByName) {
  const Json row{{"model", "m"},        {"layout", "data=1"},
                 {"height", 64},        {"width", 64},
                 {"steps", 4},          {"device", "NVIDIA H200 (cuda:0)"},
                 {"runs", 5},           {"ms_per_step", {{"median", 100.0}, {"min", 99.0}, {"max", 101.0}}},
                 {"peak_bytes", {5, 7}}};
  const auto list = entries_of({{"rows", {row}}}, "a"), named = entries_of({{"rows", {{"one", row}}}}, "b");
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].device, "NVIDIA H200");
  EXPECT_DOUBLE_EQ(list[0].numbers.at("ms_per_step").noise, 0.01);
  EXPECT_EQ(list[0].numbers.at("ms_per_step").runs, 5);
  EXPECT_EQ(list[0].numbers.at("peak_bytes").value, 7);
  EXPECT_EQ(named[0].name, "one");
}

}  // namespace
}  // namespace atelier::bench
