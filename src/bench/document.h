// A page as data: what is said, and where each of its numbers comes from. How it is shown is html.h, text.h
// and svg.h; what was run is none of its business.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::bench {

enum class Basis {
  kText,      // no number
  kAsked,     // what somebody chose: sizes, steps, layouts, thresholds
  kMeasured,  // by this program, on the machine that the page names
  kModelled,  // by the planner, or by arithmetic
  kCited,     // from a document, with its hardware
};
std::string_view name_of(Basis source);  // "measured"; empty for kText

struct Cell {
  std::string text;
  Basis source = Basis::kText;
};

struct Table {
  std::string id, title;
  std::vector<std::string> columns;
  std::vector<std::vector<Cell>> rows;  // as long as columns
};

struct ChartValue {
  double y = 0;
  std::optional<double> least = {}, most = {};  // of the runs
};

// One line, one set of bars, or one layer of stacks: a value for each category, or none.
struct ChartSeries {
  std::string name;
  Basis source = Basis::kMeasured;
  std::vector<std::optional<ChartValue>> values;
};

enum class ChartKind { kLines, kBars, kStacks };

struct Chart {
  std::string id, title;
  ChartKind kind = ChartKind::kBars;
  std::string categories_title, values_title;  // with the unit
  std::vector<std::string> categories;
  std::vector<ChartSeries> series;
  std::optional<double> most = {};  // of the axis; none: by the values
};

struct Figure {
  std::string id, caption;
  Basis source = Basis::kMeasured;
  std::string type, bytes;  // "image/webp"
};

struct Line {
  std::string text;
  Basis source = Basis::kText;
};

struct PageSection {
  std::string id, title;
  std::vector<Line> lines;
  std::vector<Table> tables;
  std::vector<Chart> charts;
  std::vector<Figure> pictures;
};

struct Document {
  std::string title;
  std::vector<Line> lead;
  std::vector<PageSection> sections;
};

// What breaks the rule that every number says where it comes from: text with a digit, a row of the wrong
// length, a series of text. A sentence each; empty: nothing.
std::vector<std::string> unlabelled(const Document& document);

// At most three digits that count: "0.12", "41.8", "1730", "1.2e-05".
std::string number_text(double value);

}  // namespace atelier::bench
