#include "request/lines.h"

#include "base/error.h"

namespace atelier::request {
namespace {

constexpr int kEnd = std::char_traits<char>::eof();

// Whether the text begins with these bytes, which are skipped then.
bool take(std::streambuf& text, std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (text.sgetc() == static_cast<unsigned char>(bytes[i])) {
      text.sbumpc();
      continue;
    }
    while (i-- > 0) text.sungetc();
    return false;
  }
  return true;
}

}  // namespace

void refuse_long_row(int64_t line) {
  throw Error(Kind::kUsage, str("line ", line, " is longer than ", kMostRowBytes >> 20,
                                " MiB, which no row is: is it the file that was meant?"));
}

bool Lines::next(std::string& line) {
  line.clear();
  if (text_.sgetc() == kEnd) return false;
  ++number_;
  for (int c = text_.sbumpc(); c != kEnd && c != '\n'; c = text_.sbumpc()) {
    if (c == '\r') {
      if (text_.sgetc() == '\n') text_.sbumpc();
      break;
    }
    if (line.size() == kMostRowBytes) refuse_long_row(number_);
    line.push_back(static_cast<char>(c));
  }
  return true;
}

bool skip_mark(std::streambuf& text) {
  for (const char* mark : {"\xFF\xFE", "\xFE\xFF"}) {
    if (!take(text, mark)) continue;
    text.sungetc(), text.sungetc();
    return false;
  }
  take(text, "\xEF\xBB\xBF");
  return true;
}

}  // namespace atelier::request
