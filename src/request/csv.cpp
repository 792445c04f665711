// A one-pass CSV reader.
#include "request/csv.h"

namespace atelier::request {
namespace {

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool next(CsvRecord& record) {
    if (at_ >= text_.size()) return false;
    record = {line_, {}, {}};
    do {
      record.cells.push_back(cell(record));
    } while (take(','));
    end_of_line();
    return true;
  }

 private:
  bool is_end() const { return at_ >= text_.size(); }
  bool take(char c) {
    if (is_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void end_of_line() {
    const bool has_return = take('\r');
    if (take('\n') || has_return) ++line_;
  }
  static bool ends_cell(char c) { return c == ',' || c == '\r' || c == '\n'; }

  std::string cell(CsvRecord& record) {
    std::string out;
    if (take('"')) out = quoted(record);
    // text behind a closing quote belongs to the cell, as Python's reader has it
    while (!is_end() && !ends_cell(text_[at_])) out.push_back(text_[at_++]);
    return out;
  }

  std::string quoted(CsvRecord& record) {
    std::string out;
    const int64_t opened = line_;
    while (!is_end()) {
      const char c = text_[at_++];
      if (c == '"' && !take('"')) return out;
      if (c == '\n' || (c == '\r' && (is_end() || text_[at_] != '\n'))) ++line_;
      out.push_back(c);
    }
    record.error = "the quote opened in line " + std::to_string(opened) + " is never closed";
    return out;
  }

  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRecord> read_csv(std::string_view text) {
  std::vector<CsvRecord> records;
  Reader reader(text);
  for (CsvRecord record; reader.next(record);) {
    const bool is_blank = record.cells.size() == 1 && record.cells[0].empty() && record.error.empty();
    if (!is_blank) records.push_back(std::move(record));
  }
  return records;
}

}  // namespace atelier::request
