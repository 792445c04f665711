// Every number says where it comes from; what is written holds nothing that a browser would fetch or
// take for markup.
#include "bench/document.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "bench/drawing.h"
#include "bench/html.h"
#include "bench/svg.h"
#include "bench/text.h"

namespace atelier::bench {
namespace {

Chart chart(ChartKind kind) {
  return {.id = "c",
          .title = "<Times> & more",
          .kind = kind,
          .categories_title = "GPUs",
          .values_title = "ms",
          .categories = {"1", "2: ulysses=2", "8"},
          .series = {{"ours", Basis::kMeasured, {ChartValue{10, 9, 12}, ChartValue{5}, std::nullopt}},
                     {"planner", Basis::kModelled, {ChartValue{11}, std::nullopt, std::nullopt}}}};
}

Document document() {
  PageSection section{
      .id = "s", .title = "Section", .lines = {{"A line"}, {"It took 3 s", Basis::kMeasured}}};
  section.tables = {{"t",
                     "Table",
                     {"name", "ms"},
                     {{{"a, \"b\" | c"}, {"12", Basis::kMeasured}}, {{"other"}, {"9", Basis::kModelled}}}}};
  section.charts = {chart(ChartKind::kLines), chart(ChartKind::kBars), chart(ChartKind::kStacks)};
  section.pictures = {{"p", "A <picture>", Basis::kMeasured, "image/webp", "\x01\x02\xff"}};
  return {.title = "Title", .lead = {{"Lead"}}, .sections = {section}};
}

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(Document, ADigitNeedsASource) {
  EXPECT_TRUE(unlabelled(document()).empty());
  Document bad = document();
  bad.sections[0].tables[0].rows[0][1].source = Basis::kText;
  bad.sections[0].lines[1].source = Basis::kText;
  bad.lead[0].text = "Lead of 2";
  EXPECT_EQ(unlabelled(bad).size(), 3u);
  bad = document();
  bad.sections[0].charts[0].series[0].source = Basis::kText;
  bad.sections[0].charts[0].categories.pop_back();
  bad.sections[0].tables[0].rows[0].pop_back();
  EXPECT_EQ(unlabelled(bad).size(), 4u) << "a series of text, two series too long, a row too short";
}

TEST(Document, NumbersKeepThreeDigits) {
  EXPECT_EQ(number_text(0), "0");
  EXPECT_EQ(number_text(41.84), "41.8");
  EXPECT_EQ(number_text(1731.3), "1731");
  EXPECT_EQ(number_text(0.0123), "0.0123");
  EXPECT_EQ(number_text(2.54e-5), "2.5e-05");
  EXPECT_EQ(number_text(std::numeric_limits<double>::infinity()), "without bound");
}

TEST(Svg, TicksAreRoundAndReachTheMost) {
  for (const double most : {0.0007, 0.9, 1.0, 7.3, 121.4, 1e6}) {
    const auto marks = ticks(most, 5);
    EXPECT_EQ(marks.front(), 0);
    EXPECT_GE(marks.back(), most * 0.999);
    EXPECT_LE(marks.size(), 6u) << most;
    EXPECT_LT(marks[marks.size() - 2], most) << most;
  }
  EXPECT_EQ(ticks(0, 5).size(), 6u) << "an axis of nothing still has one";
}

TEST(Svg, ShowsEveryValueAndWhatIsMissing) {
  const auto bars = svg(chart(ChartKind::kBars), SvgUse::kAlone);
  EXPECT_NE(bars.find("not measured here"), std::string::npos);
  EXPECT_NE(bars.find("&lt;Times&gt; &amp; more"), std::string::npos);
  EXPECT_EQ(bars.find("<Times>"), std::string::npos);
  EXPECT_EQ(count(bars, "<g class=\"s0 measured\">"), 3u) << "a swatch of the legend and two bars";
  EXPECT_EQ(count(bars, "<g class=\"s1 modelled\">"), 2u);
  EXPECT_EQ(count(bars, "class=\"whisker\""), 1u);
  const auto lines = svg(chart(ChartKind::kLines), SvgUse::kInPage);
  EXPECT_EQ(count(lines, "<circle"), 3u);
  EXPECT_EQ(lines.find("<style>"), std::string::npos) << "the page has it";
  const auto stacks = svg(chart(ChartKind::kStacks), SvgUse::kAlone);
  EXPECT_NE(stacks.find(">21<"), std::string::npos) << "the total of the first stack";
  EXPECT_NE(stacks.find("prefers-color-scheme:dark"), std::string::npos);
}

// Everything lies within the drawing: no label is cut.
TEST(Svg, TextsLieInside) {
  for (const auto kind : {ChartKind::kLines, ChartKind::kBars, ChartKind::kStacks}) {
    auto c = chart(kind);
    c.categories[1] = "2: a layout with so many words that its label has to be cut somewhere";
    const auto text = svg(c, SvgUse::kInPage);
    const double height = std::stod(text.substr(text.find("viewBox=\"0 0 720 ") + 17));
    for (size_t at = text.find(" y=\""); at != std::string::npos; at = text.find(" y=\"", at + 1))
      EXPECT_LE(std::stod(text.substr(at + 4)), height);
    EXPECT_EQ(text.find("\"-"), std::string::npos) << "nothing lies left of it or above";
  }
}

TEST(Html, NeedsNothingElse) {
  const auto page = html(document());
  EXPECT_EQ(page.find("http://"), std::string::npos);
  EXPECT_EQ(page.find("https://"), std::string::npos);
  EXPECT_EQ(page.find("<script"), std::string::npos);
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(page.find("data:image/webp;base64,AQL/"), std::string::npos);
  EXPECT_NE(page.find("A &lt;picture&gt;"), std::string::npos);
  EXPECT_NE(page.find("<td class=\"modelled\">9</td>"), std::string::npos);
  EXPECT_EQ(count(page, "<svg"), 3u);
}

TEST(Text, MarkdownAndCsvKeepSources) {
  const auto md = markdown(document(), "charts");
  EXPECT_NE(md.find("| a, \"b\" \\| c | **12** |"), std::string::npos) << md;
  EXPECT_NE(md.find("*9* (modelled)"), std::string::npos);
  EXPECT_NE(md.find("It took 3 s (measured)"), std::string::npos);
  EXPECT_NE(md.find("](charts/c.svg)"), std::string::npos);
  const auto table = csv(document());
  EXPECT_NE(table.find("s,t,\"a, \"\"b\"\" | c\",ms,12,measured\n"), std::string::npos) << table;
  EXPECT_NE(table.find("s,t,other,ms,9,modelled\n"), std::string::npos);
  Document keyed = document();
  keyed.sections[0].tables = {
      {"u", "Table", {"model", "GPUs", "ms"}, {{{"m"}, {"2", Basis::kAsked}, {"5", Basis::kMeasured}}}}};
  EXPECT_NE(csv(keyed).find("s,u,m / 2,ms,5,measured\n"), std::string::npos) << csv(keyed);
}

}  // namespace
}  // namespace atelier::bench
