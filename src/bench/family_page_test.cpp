// The page of a family: hardware by hardware, with the report's lists beside ours.
#include "bench/family_page.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/family_report.h"
#include "bench/text.h"

namespace atelier::bench {
namespace {

FamilyRow row(const std::string& hardware, const std::string& layout, int gpus, double ms, Basis source) {
  return {.hardware = hardware,
          .model = "HunyuanDiT-v1.2-Diffusers",
          .layout = layout,
          .gpus = gpus,
          .side = 1024,
          .steps = 10,
          .ms_per_step = ms,
          .source = source,
          .from = "a file"};
}

FamilyQuery query() {
  const std::string a100(reported_machines()[0].title);
  return {
      .family = "hunyuan_dit",
      .is_reported = true,
      .hardware = {"NVIDIA H200", a100},
      .rows = {row("NVIDIA H200", "data=1", 1, 60, Basis::kMeasured),
               row("NVIDIA H200", "cfg=2", 2, 33, Basis::kMeasured),
               row(a100, "data=1", 1, 150, Basis::kModelled), row(a100, "ulysses=2", 2, 80, Basis::kModelled),
               row(a100, "cfg=2, ulysses=2", 4, 45, Basis::kModelled)}};
}

TEST(FamilyPage, BothReportedListsStandBesideOurs) {
  const auto page = family_page(query());
  EXPECT_EQ(unlabelled(page), std::vector<std::string>());
  ASSERT_GE(page.sections.size(), 3u);
  const auto& order = page.sections[1].tables[0];
  ASSERT_EQ(order.columns.size(), 3 + reported_rankings().size());
  EXPECT_EQ(order.rows[0][2].text, "ulysses=2");
  EXPECT_EQ(order.rows[0][3].text, "ulysses=2");
  EXPECT_EQ(order.rows[0][4].text, "pipefusion=2");
  EXPECT_EQ(order.rows[1][3].text, "cfg=2, ulysses=2");
  EXPECT_EQ(order.rows[1][4].text, "cfg=2, pipefusion=2");
  for (const auto& cells : order.rows) EXPECT_EQ(cells[3].source, Basis::kCited);
  EXPECT_EQ(page.sections[0].tables[0].columns.size(), 3u) << "the report says nothing of our own hardware";
}

TEST(FamilyPage, ModelledHardwareSaysSo) {
  const auto page = family_page(query());
  const auto& a100 = page.sections[1];
  EXPECT_EQ(a100.lines[0].source, Basis::kModelled);
  EXPECT_NE(a100.lines[0].text.find("Not measured here"), std::string::npos);
  for (const auto& c : a100.charts)
    for (const auto& s : c.series) EXPECT_EQ(s.source, Basis::kModelled);
  EXPECT_EQ(a100.charts.size(), 2u) << "latency and scalability at 1024 px";
  EXPECT_EQ(page.sections[0].charts[0].series[0].source, Basis::kMeasured);
}

TEST(FamilyPage, TakesItsRowsFromResultFiles) {
  const Json ms{{"median", 64.8}, {"min", 60.9}, {"max", 74.1}};
  const Json one{{"model", "HunyuanDiT-v1.2-Diffusers (dummy weights)"},
                 {"layout", "data=1"},
                 {"ranks", 1},
                 {"height", 1024},
                 {"width", 1024},
                 {"steps", 10},
                 {"batch", 1},
                 {"device", "NVIDIA H200 (cuda:0)"},
                 {"ms_per_step", ms}};
  Json other = one, fast = one, wide = one, bad = one;
  other["model"] = "FLUX.1-schnell", fast["tier"] = "fast", wide["width"] = 512, bad["problem"] = "no";
  const auto rows = family_rows({{"rows", {one, other, fast, wide, bad}}}, "HunyuanDiT", "families.json");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].hardware, "NVIDIA H200");
  EXPECT_EQ(rows[0].ms_per_step, 64.8);
  EXPECT_EQ(rows[0].most, 74.1);
  EXPECT_EQ(rows[0].from, "families.json");
}

TEST(FamilyPage, OtherModelsAndFilesAreSectionsOfTheirOwn) {
  FamilyQuery q{.family = "sd3", .hardware = {}, .rows = {}};
  std::vector<FamilyRow> rows;
  for (const char* model : {"medium", "large"}) {
    for (const char* file : {"a.json", "b.json"}) {
      for (const char* layout : {"data=1", "cfg=2", "kv_gather=2"}) {
        rows.push_back(row("H200", layout, *layout == 'd' ? 1 : 2, 60, Basis::kMeasured));
        rows.back().model = model, rows.back().from = file;
      }
    }
  }
  add_measured(q, rows);
  const auto page = family_page(q);
  ASSERT_EQ(page.sections.size(), 4u);
  EXPECT_EQ(page.sections[1].title, "H200, medium, b.json");
  for (const auto& section : page.sections) {
    EXPECT_EQ(section.tables[0].rows[0][2].text, "cfg=2; kv_gather=2");
    EXPECT_EQ(section.charts[1].series.size(), 2u) << "a line for each method";
  }
  EXPECT_EQ(page.lead[0].text.find("cited"), std::string::npos) << "nothing is";
  FamilyQuery alone{.family = "sd3", .hardware = {}, .rows = {}};
  add_measured(alone, {row("H200", "data=1", 1, 60, Basis::kMeasured)});
  EXPECT_EQ(alone.hardware, std::vector<std::string>{"H200"});
}

}  // namespace
}  // namespace atelier::bench
