// CSV as spreadsheets and Python write it: quoted cells with commas, quotes and line ends inside.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::request {

struct CsvRecord {
  int64_t line = 1;  // where it starts, counted from 1
  std::vector<std::string> cells;
  std::string error;  // why it cannot be used; empty if it can
};

// Blank lines are left out. A quote that never closes makes one last record with an error. [RFC 4180]
std::vector<CsvRecord> read_csv(std::string_view text);

}  // namespace atelier::request
