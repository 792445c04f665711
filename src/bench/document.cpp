#include "bench/document.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "base/error.h"

namespace atelier::bench {
namespace {

bool has_digit(const std::string& text) {
  return std::any_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

void look_at(const Line& line, const std::string& where, std::vector<std::string>& out) {
  if (line.source == Basis::kText && has_digit(line.text))
    out.push_back(str(where, ": \"", line.text, "\" holds a number and does not say where it comes from"));
}

void look_at(const Table& table, std::vector<std::string>& out) {
  for (const auto& row : table.rows) {
    if (row.size() != table.columns.size())
      out.push_back(str("table ", table.id, ": a row of ", row.size(), " cells under ", table.columns.size(),
                        " columns"));
    for (const auto& cell : row) look_at({cell.text, cell.source}, "table " + table.id, out);
  }
}

void look_at(const Chart& chart, std::vector<std::string>& out) {
  for (const auto& s : chart.series) {
    if (s.source == Basis::kText)
      out.push_back(str("chart ", chart.id, ": the series ", s.name, " does not say where it comes from"));
    if (s.values.size() != chart.categories.size())
      out.push_back(str("chart ", chart.id, ": the series ", s.name, " has ", s.values.size(), " values for ",
                        chart.categories.size(), " categories"));
  }
}

}  // namespace

std::string_view name_of(Basis source) {
  switch (source) {
    case Basis::kText:
      return "";
    case Basis::kAsked:
      return "asked";
    case Basis::kMeasured:
      return "measured";
    case Basis::kModelled:
      return "modelled";
    case Basis::kCited:
      return "cited";
  }
  return "";
}

std::vector<std::string> unlabelled(const Document& document) {
  std::vector<std::string> out;
  for (const auto& line : document.lead) look_at(line, "head", out);
  for (const auto& section : document.sections) {
    for (const auto& line : section.lines) look_at(line, "section " + section.id, out);
    for (const auto& table : section.tables) look_at(table, out);
    for (const auto& chart : section.charts) look_at(chart, out);
    for (const auto& picture : section.pictures)
      look_at({picture.caption, picture.source}, "picture " + picture.id, out);
  }
  return out;
}

std::string number_text(double value) {
  if (!std::isfinite(value)) return value > 0 ? "without bound" : "not a number";
  const double size = std::abs(value);
  std::ostringstream out;
  if (size != 0 && (size < 1e-3 || size >= 1e9)) {
    out << std::setprecision(2) << value;
  } else if (size >= 100) {
    out << std::fixed << std::setprecision(0) << value;
  } else {
    out << std::setprecision(3) << value;
  }
  return out.str();
}

}  // namespace atelier::bench
