// A text taken apart while it is read: nothing of it is kept.
#pragma once
#include <cstddef>
#include <cstdint>
#include <streambuf>
#include <string>

namespace atelier::request {

// Of a line or a record: no row of prompts is longer, and an endless file must not fill the memory.
constexpr size_t kMostRowBytes = size_t{64} << 20;
// Throws Error(kUsage).
[[noreturn]] void refuse_long_row(int64_t line);

class Lines {
 public:
  explicit Lines(std::streambuf& text) : text_(text) {}
  // The next line without its end (\n, \r\n or \r); false at the end of the text. Throws Error(kUsage) for a
  // line of more than kMostRowBytes.
  bool next(std::string& line);
  int64_t number() const { return number_; }  // of the last line given, from 1

 private:
  std::streambuf& text_;
  int64_t number_ = 0;
};

// Skips the byte order mark that some editors put in front. False for the marks of UTF-16, which stay.
bool skip_mark(std::streambuf& text);

}  // namespace atelier::request
