// A one-pass CSV reader.
#include "request/csv.h"

#include <sstream>

#include "request/lines.h"

namespace atelier::request {
namespace {

bool ends_cell(char c) {
  return c == ',' || c == '\r' || c == '\n';
}

}  // namespace

bool CsvReader::next(CsvRecord& record) {
  while (!is_end()) {
    record = {line_, {}, {}};
    record_bytes_ = 0;
    do {
      count(sizeof(std::string));
      record.cells.push_back(cell(record));
    } while (take(','));
    end_of_line();
    const bool is_blank = record.cells.size() == 1 && record.cells[0].empty() && record.error.empty();
    if (!is_blank) return true;
  }
  return false;
}

bool CsvReader::is_end() {
  return text_.sgetc() == std::char_traits<char>::eof();
}

bool CsvReader::take(char c) {
  if (text_.sgetc() != static_cast<unsigned char>(c)) return false;
  text_.sbumpc();
  return true;
}

void CsvReader::end_of_line() {
  const bool has_return = take('\r');
  if (take('\n') || has_return) ++line_;
}

std::string CsvReader::cell(CsvRecord& record) {
  std::string out;
  if (take('"')) out = quoted(record);
  // text behind a closing quote belongs to the cell, as Python's reader has it
  while (!is_end() && !ends_cell(static_cast<char>(text_.sgetc()))) append(out);
  return out;
}

void CsvReader::append(std::string& cell) {
  count(1);
  cell.push_back(static_cast<char>(text_.sbumpc()));
}

void CsvReader::count(size_t bytes) {
  record_bytes_ += bytes;
  if (record_bytes_ > kMostRowBytes) refuse_long_row(line_);
}

std::string CsvReader::quoted(CsvRecord& record) {
  std::string out;
  const int64_t opened = line_;
  const auto begin = text_.pubseekoff(0, std::ios::cur, std::ios::in);  // -1: a pipe
  while (!is_end()) {
    const char c = static_cast<char>(text_.sbumpc());
    if (c == '"' && !take('"')) return out;
    if (c == '\n' || (c == '\r' && text_.sgetc() != '\n')) ++line_;
    count(1);
    out.push_back(c);
  }
  record.error = "the quote opened in line " + std::to_string(opened) + " is never closed";
  if (begin == std::streampos(-1) || text_.pubseekpos(begin, std::ios::in) != begin) return out;
  // it takes its own line with it, and no other
  line_ = opened;
  out.clear();
  while (!is_end() && text_.sgetc() != '\r' && text_.sgetc() != '\n') append(out);
  return out;
}

std::vector<CsvRecord> read_csv(std::string_view text) {
  std::stringbuf bytes{std::string(text), std::ios::in};
  std::vector<CsvRecord> records;
  CsvReader reader(bytes);
  for (CsvRecord record; reader.next(record);) records.push_back(std::move(record));
  return records;
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string out;
  for (const std::string& cell : cells) {
    if (&cell != &cells.front()) out.push_back(',');
    if (cell.find_first_of(",\"\r\n") == std::string::npos) {
      out += cell;
      continue;
    }
    out.push_back('"');
    for (const char c : cell) out.append(c == '"' ? 2 : 1, c);
    out.push_back('"');
  }
  return out;
}

}  // namespace atelier::request
