// CSV as spreadsheets and Python write it: quoted cells with commas, quotes and line ends inside.
#pragma once
#include <cstdint>
#include <streambuf>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::request {

struct CsvRecord {
  int64_t line = 1;  // where it starts, counted from 1
  std::vector<std::string> cells;
  std::string error;  // why it cannot be used; empty if it can
};

// Reads one record after another. Blank lines are left out. A quote that never closes makes a record with an
// error of its line, in a pipe of all that is left. Throws Error(kUsage) for a record of more than
// kMostRowBytes. [RFC 4180]
class CsvReader {
 public:
  explicit CsvReader(std::streambuf& text) : text_(text) {}
  bool next(CsvRecord& record);  // false at the end of the text

 private:
  bool is_end();
  bool take(char c);
  void end_of_line();
  std::string cell(CsvRecord& record);
  std::string quoted(CsvRecord& record);
  void append(std::string& cell);  // the next character
  void count(size_t bytes);        // of the record

  std::streambuf& text_;
  int64_t line_ = 1;
  size_t record_bytes_ = 0;
};
std::vector<CsvRecord> read_csv(std::string_view text);

// One line without its end, cells quoted where they must be.
std::string csv_line(const std::vector<std::string>& cells);

}  // namespace atelier::request
