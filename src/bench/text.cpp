#include "bench/text.h"

#include <sstream>

#include "base/error.h"

namespace atelier::bench {
namespace {

std::string in_cell(const Cell& cell) {
  std::string out;
  for (const char c : cell.text) out += c == '|' ? "\\|" : std::string(1, c);
  if (cell.source == Basis::kMeasured) return "**" + out + "**";
  if (cell.source == Basis::kModelled) return "*" + out + "* (modelled)";
  if (cell.source == Basis::kCited) return out + " (cited)";
  return out;
}

std::string sentence(const Line& line) {
  const auto source = name_of(line.source);
  return source.empty() ? line.text : str(line.text, " (", source, ")");
}

void write_text(std::ostream& out, const Table& table) {
  out << "### " << table.title << "\n\n|";
  for (const auto& column : table.columns) out << " " << column << " |";
  out << "\n|";
  for (size_t i = 0; i < table.columns.size(); ++i) out << "---|";
  out << "\n";
  for (const auto& row : table.rows) {
    out << "|";
    for (const auto& cell : row) out << " " << in_cell(cell) << " |";
    out << "\n";
  }
  out << "\n";
}

std::string in_csv(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

// How many cells name a row: those before the first that holds a result, one at least.
size_t keys_of(const std::vector<Cell>& row) {
  size_t count = 1;
  while (count < row.size() && (row[count].source == Basis::kAsked || row[count].source == Basis::kText) &&
         !row[count].text.empty())
    ++count;
  return count < row.size() ? count : 1;
}

}  // namespace

std::string markdown(const Document& document, const std::string& charts) {
  std::ostringstream out;
  out << "# " << document.title << "\n\n**Bold** is measured, *italic* modelled.\n\n";
  for (const auto& line : document.lead) out << sentence(line) << "\n\n";
  for (const auto& section : document.sections) {
    out << "## " << section.title << "\n\n";
    for (const auto& line : section.lines) out << sentence(line) << "\n\n";
    for (const auto& chart : section.charts)
      out << "![" << chart.title << "](" << charts << "/" << chart.id << ".svg)\n\n";
    for (const auto& table : section.tables) write_text(out, table);
  }
  return out.str();
}

std::string csv(const Document& document) {
  std::ostringstream out;
  out << "section,table,row,column,value,source\n";
  for (const auto& section : document.sections) {
    for (const auto& table : section.tables) {
      for (const auto& row : table.rows) {
        const size_t first = keys_of(row);
        std::string name;
        for (size_t i = 0; i < first; ++i) name += (i > 0 ? " / " : "") + row[i].text;
        for (size_t i = first; i < row.size(); ++i) {
          if (row[i].text.empty()) continue;
          out << in_csv(section.id) << "," << in_csv(table.id) << "," << in_csv(name) << ","
              << in_csv(table.columns[i]) << "," << in_csv(row[i].text) << "," << name_of(row[i].source)
              << "\n";
        }
      }
    }
  }
  return out.str();
}

}  // namespace atelier::bench
