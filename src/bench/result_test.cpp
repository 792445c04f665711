// What a protocol measures, and what its result says: criteria, pages, missing numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "bench/checks.h"
#include "bench/cited.h"
#include "bench/html.h"
#include "bench/progress.h"
#include "bench/protocol_page.h"
#include "bench/testing.h"

namespace atelier::bench {
namespace {

Check check_named(const Json& result, const std::string& beginning) {
  for (const auto& c : success_checks(result)) {
    if (c.what.starts_with(beginning)) return c;
  }
  ADD_FAILURE() << beginning;
  return {};
}

const Table& table_named(const Document& page, const std::string& id) {
  for (const auto& s : page.sections)
    for (const auto& t : s.tables)
      if (t.id == id) return t;
  throw std::out_of_range(id);
}

TEST(Protocol, OneGpuComesFirstAndNothingTwice) {
  const auto list = measurements({.gpus = 4,
                                  .height = 1024,
                                  .width = 1024,
                                  .sizes = {1024, 2048},
                                  .batches = {1, 2},
                                  .branches = 2,
                                  .is_gpu = true});
  EXPECT_EQ(list[0].strategy, "data=1");
  std::set<std::string> ids;
  for (const auto& m : list) EXPECT_TRUE(ids.insert(m.id).second) << m.id;
  const auto has = [&](const char* strategy, Topic topic) {
    return std::any_of(list.begin(), list.end(),
                       [&](const auto& m) { return m.strategy == strategy && m.is_for(topic); });
  };
  for (const auto* s : {"data=1", "ulysses=2", "ulysses=4", "ulysses=8"})
    EXPECT_TRUE(has(s, Topic::kScaling)) << s;
  for (const auto* s : {"ring=2", "tensor=4", "pipefusion=4", "cfg=2, ulysses=2", "ulysses=2, ring=2"})
    EXPECT_TRUE(has(s, Topic::kStrategies)) << s;
  EXPECT_TRUE(has("ulysses=4, parallel_vae", Topic::kSizes));
  EXPECT_TRUE(has("data=8", Topic::kThroughput));
  EXPECT_TRUE(has("data=1", Topic::kGraphs));
  EXPECT_EQ(list[0].topics & static_cast<unsigned>(Topic::kBatches), static_cast<unsigned>(Topic::kBatches));
}

TEST(Protocol, LeavesOutWhatAModelCannotHave) {
  for (const auto& m : measurements({.gpus = 4, .height = 64, .width = 64, .is_unet = true})) {
    EXPECT_EQ(m.strategy.find("pipefusion"), std::string::npos);
    EXPECT_EQ(m.strategy.find("cfg"), std::string::npos) << "one branch";
  }
  EXPECT_THROW(measurements({.name = "other"}), Error);
}

TEST(Result, AMadeUpOneIsWhole) {
  for (const auto* name : {"flux", "throughput"}) {
    const auto result = result_for_test(name);
    EXPECT_EQ(schema_problems(result), std::vector<std::string>());
    const auto page = protocol_page(result, {});
    EXPECT_EQ(unlabelled(page), std::vector<std::string>()) << name;
  }
}

TEST(Result, NumbersWithoutASourceBreakTheSchema) {
  auto result = result_for_test();
  result["rows"][0]["measured"].erase("kind");
  EXPECT_GT(schema_problems(result).size(), 5u);
  result = result_for_test();
  result["seconds"] = 3;
  EXPECT_EQ(schema_problems(result),
            std::vector<std::string>{"/seconds is neither measured, modelled nor cited"});
  result = result_for_test();
  result["machine"].erase("driver");
  EXPECT_EQ(schema_problems(result), std::vector<std::string>{"machine lacks driver"});
  result = result_for_test();
  row_of(result, "ulysses_8-1024x1024-b1").erase("why");
  EXPECT_EQ(schema_problems(result).size(), 1u);
}

TEST(Result, ValuesOfAnotherTypeBreakTheSchemaToo) {
  for (const char* text : {"5", "[]", "null", R"("words")", R"({"schema": 5})"})
    EXPECT_FALSE(schema_problems(Json::parse(text)).empty()) << text;
  for (const char* key : {"asked", "machine", "rows", "quality"}) {
    for (const char* text : {"7", "[1]", R"({"a": [2]})"}) {
      auto result = result_for_test();
      result[key] = Json::parse(text);
      EXPECT_NO_THROW(schema_problems(result)) << key << " " << text;
    }
  }
}

TEST(Result, TextIsTheSameResult) {
  const auto result = result_for_test();
  const auto text = to_text(result);
  EXPECT_EQ(to_text(Json::parse(text)), text);
  EXPECT_EQ(schema_problems(Json::parse(text)), std::vector<std::string>());
  EXPECT_NEAR(*measured(*baseline(Json::parse(text)), "picture_s"), *measured(*baseline(result), "picture_s"),
              1e-5);
  EXPECT_GT(std::count(text.begin(), text.end(), '\n'), static_cast<int64_t>(result["rows"].size()));
}

TEST(Page, HasChartsTablesAndNoRequest) {
  const auto page = protocol_page(result_for_test(), {});
  size_t charts = 0;
  for (const auto& s : page.sections) charts += s.charts.size();
  EXPECT_GE(charts, 5u);
  EXPECT_EQ(table_named(page, "checks").rows.size(), 7u);
  EXPECT_EQ(html(page).find("://"), std::string::npos);
}

TEST(Page, AbsentGpusAreModelledAndSaySo) {
  const auto result = result_for_test();
  const auto page = protocol_page(result, {});
  const auto& rows = table_named(page, "scaling").rows;
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[1][2].source, Basis::kMeasured);
  EXPECT_EQ(rows[2][2].source, Basis::kModelled);
  EXPECT_EQ(rows[2][2].text, "25");
  EXPECT_EQ(rows[2][6].source, Basis::kModelled) << "its speed-up is the planner's too";
  EXPECT_NE(rows[2].back().text.find("2.6x"), std::string::npos);
  EXPECT_EQ(rows[2].back().source, Basis::kCited);
  auto bare = result;
  row_of(bare, "ulysses_4-1024x1024-b1").erase("modelled");
  const auto cell = table_named(protocol_page(bare, {}), "scaling").rows[2][2];
  EXPECT_EQ(cell.text, "not measured here");
  EXPECT_EQ(cell.source, Basis::kText);
}

TEST(Page, NoSpeedUpWithoutOneGpu) {
  auto result = result_for_test();
  auto& one = row_of(result, "data_1-1024x1024-b1");
  one["status"] = status::kFailed, one["why"] = "broken", one.erase("measured"), one.erase("modelled");
  const auto page = protocol_page(result, {});
  for (const auto& row : table_named(page, "scaling").rows)
    for (const size_t column : {6, 7, 9}) EXPECT_EQ(row[column].text, "");
  EXPECT_EQ(check_named(result, "Linear").verdict, CheckVerdict::kNotMeasurable);
  EXPECT_EQ(check_named(result, "Installation").verdict, CheckVerdict::kFail);
  EXPECT_FALSE(speed_up(result, row_of(result, "ulysses_2-1024x1024-b1"), "ms_per_step"));
}

TEST(Checks, SevenWithTheirNumbers) {
  auto result = result_for_test();
  EXPECT_EQ(success_checks(result).size(), 7u);
  EXPECT_EQ(check_named(result, "Installation").verdict, CheckVerdict::kPass);
  EXPECT_EQ(check_named(result, "Multi-GPU").verdict, CheckVerdict::kPass);
  EXPECT_EQ(check_named(result, "Linear").verdict, CheckVerdict::kPass);
  auto& many = row_of(result, "data_2-1024x1024-b2")["measured"]["pictures_per_second"];
  const double one = *measured(*baseline(result), "pictures_per_second");
  many = 1.8 * one;
  EXPECT_EQ(check_named(result, "Linear").verdict, CheckVerdict::kFail) << "90 % of many pictures on two";
  many = 1.96 * one;
  EXPECT_EQ(check_named(result, "Linear").verdict, CheckVerdict::kPass);
  EXPECT_NE(check_named(result, "Linear").found.find("90 %"), std::string::npos);
  row_of(result, "ulysses_2-1024x1024-b1")["measured"]["ms_per_step"]["median"] = 60;
  EXPECT_EQ(check_named(result, "Linear").verdict, CheckVerdict::kFail) << "83 % on two";
  EXPECT_EQ(check_named(result, "NVLink").verdict, CheckVerdict::kNotMeasurable);
  result["rows"][0]["measured"]["gpus"] = {{{"nvlink_sent_bytes", 5e9}}};
  EXPECT_EQ(check_named(result, "NVLink").verdict, CheckVerdict::kPass);
  EXPECT_EQ(check_named(result, "Memory").verdict, CheckVerdict::kPass);
  row_of(result, "ulysses_2-1024x1024-b1")["measured"]["peak_memory"][1]["device_bytes"] = 5LL << 30;
  EXPECT_EQ(check_named(result, "Memory").verdict, CheckVerdict::kFail);
  EXPECT_NE(check_named(result, "High").found.find("2048 px"), std::string::npos);
  EXPECT_EQ(check_named(result, "High").verdict, CheckVerdict::kPass);
}

TEST(Checks, CpuRanksProveNoSpeed) {
  auto result = result_for_test();
  result["machine"]["gpus"] = 0, result["machine"]["device"] = "CPU", result["asked"]["device"] = "cpu";
  EXPECT_EQ(check_named(result, "Linear").verdict, CheckVerdict::kNotMeasurable);
  EXPECT_NE(check_named(result, "Linear").found.find("90 %"), std::string::npos)
      << "the number is there all the same";
  EXPECT_EQ(check_named(result, "Multi-GPU").verdict, CheckVerdict::kNotMeasurable);
  EXPECT_NE(bound_by(result).find("the CPU"), std::string::npos);
}

TEST(Checks, AnExactLayoutThatDiffersFails) {
  EXPECT_EQ(judge({{"most_levels", 1}, {"share", 1e-5}}, true).verdict, "same");
  EXPECT_EQ(judge({{"most_levels", 2}, {"share", 1e-5}}, true).verdict, "differs");
  EXPECT_EQ(judge({{"most_levels", 1}, {"share", 0.1}}, true).verdict, "differs");
  EXPECT_EQ(judge({{"most_levels", 90}, {"psnr_least", 30}, {"ssim_least", 0.9}}, false).verdict, "close");
  EXPECT_EQ(judge({{"most_levels", 90}, {"psnr_least", 30}, {"ssim_least", 0.3}}, false).verdict,
            "below the floor");
  auto result = result_for_test();
  result["quality"] = {{{"id", "ring_2-1024x1024-b1"},
                        {"asked", {{"layout", "ring=2"}}},
                        {"kind", "measured"},
                        {"verdict", "differs"}}};
  EXPECT_EQ(check_named(result, "Parallel").verdict, CheckVerdict::kFail);
}

TEST(Checks, SlowStorageIsNamed) {
  auto result = result_for_test();
  EXPECT_NE(bound_by(result).find("arithmetic"), std::string::npos) << bound_by(result);
  row_of(result, "data_1-1024x1024-b1")["measured"]["pictures_per_second"] = 0.4;
  EXPECT_NE(bound_by(result).find("storage"), std::string::npos);
  result = result_for_test();
  result["traffic"] = {{{"asked", {{"layout", "ring=2"}}}, {"share", 0.6}}};
  EXPECT_NE(bound_by(result).find("ring=2"), std::string::npos);
}

TEST(Cited, EveryFigureHasItsHardware) {
  for (const auto& f : cited_figures()) {
    EXPECT_FALSE(f.source.empty() || f.hardware.empty() || f.value.empty()) << f.id;
    EXPECT_EQ(to_json(f)["kind"], "cited");
  }
}

TEST(Progress, IsThePlansTemplate) {
  ProgressNote note;
  note.done[kSetUp] = note.done[kInstalled] = true;
  note.now = "measuring ulysses_2; 3 of 9 measurements are done.";
  note.next = "more";
  const auto text = progress_text(note);
  EXPECT_TRUE(
      text.starts_with("# Progress: xDiT Multi-GPU Optimization\n\n## Overall Progress: 28%\n\n### Completed "
                       "Tasks:\n- [x] Environment setup\n- [ ] Multi-GPU"));
  for (const auto* part : {"- [x] xDiT installed", "- [ ] Results documented", "### Current Status:\n",
                           "### Issues/Blockers:\nNone.", "### Next Steps:\nmore"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
  note.done.fill(true);
  EXPECT_EQ(note.percent(), 100);
}

}  // namespace
}  // namespace atelier::bench
