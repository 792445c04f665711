// Unicode on UTF-8 strings through ICU.
#include "text/unicode.h"

#include <unicode/brkiter.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/regex.h>
#include <unicode/uchar.h>
#include <unicode/utext.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <stdexcept>

#include "base/check.h"
#include "text/unicode_recent.h"

namespace atelier::text {

std::string valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const auto length = static_cast<int64_t>(text.size());
  for (int64_t at = 0; at < length;) {
    UChar32 c = 0;
    U8_NEXT_OR_FFFD(text.data(), at, length, c);  // NOLINT(bugprone-inc-dec-in-conditions)
    append_char(out, static_cast<char32_t>(c));
  }
  return out;
}

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

char32_t next_char(std::string_view text, size_t& at) {
  UChar32 c = 0;
  auto position = static_cast<int64_t>(at);
  const auto length = static_cast<int64_t>(text.size());
  U8_NEXT_OR_FFFD(text.data(), position, length, c);  // NOLINT(bugprone-inc-dec-in-conditions)
  at = static_cast<size_t>(position);
  return static_cast<char32_t>(c);
}

void append_char(std::string& out, char32_t c) {
  char bytes[U8_MAX_LENGTH];
  int32_t length = 0;
  U8_APPEND_UNSAFE(bytes, length, c);
  out.append(bytes, static_cast<size_t>(length));
}

size_t char_length(char first) {
  return U8_COUNT_TRAIL_BYTES(static_cast<uint8_t>(first)) + 1;
}

std::string normalized(std::string_view text, Form form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = nullptr;
  switch (form) {
    case Form::kNfc:
      normalizer = icu::Normalizer2::getNFCInstance(status);
      break;
    case Form::kNfd:
      normalizer = icu::Normalizer2::getNFDInstance(status);
      break;
    case Form::kNfkc:
      normalizer = icu::Normalizer2::getNFKCInstance(status);
      break;
    case Form::kNfkd:
      normalizer = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  ENSURE(U_SUCCESS(status));
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                            nullptr, status);
  ENSURE(U_SUCCESS(status));
  return out;
}

std::string lower_cased(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c == U'\u0130') {  // the only character whose lower case, out of context, is two: i and a dot above
      out += "i\u0307";
    } else {
      const char32_t recent = recent_lower_case(c);
      append_char(out, recent != 0 ? recent : static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
    }
  }
  return out;
}

bool is_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c));
}
bool is_python_space(char32_t c) {
  return is_space(c) || (c >= 0x1c && c <= 0x1f);
}
bool is_letter(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0 || is_recent_letter(c);
}
bool is_number(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0 || is_recent_number(c);
}

bool is_word(char32_t c) {
  const auto code = static_cast<UChar32>(c);
  return u_hasBinaryProperty(code, UCHAR_ALPHABETIC) || u_hasBinaryProperty(code, UCHAR_JOIN_CONTROL) ||
         (U_GET_GC_MASK(code) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

std::string_view strip_left(std::string_view text, CharTest test) {
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (!test(next_char(text, at))) return text.substr(start);
  }
  return {};
}

std::string_view strip_right(std::string_view text, CharTest test) {
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && U8_IS_TRAIL(static_cast<uint8_t>(text[start]))) --start;
    size_t at = start;
    if (!test(next_char(text, at))) return text;
    text = text.substr(0, start);
  }
  return text;
}

void for_each_grapheme(std::string_view text, const std::function<void(std::string_view)>& use) {
  UErrorCode status = U_ZERO_ERROR;
  UText* source = utext_openUTF8(nullptr, text.data(), static_cast<int64_t>(text.size()), &status);
  ENSURE(U_SUCCESS(status));
  const std::unique_ptr<UText, UText* (*)(UText*)> close(source, utext_close);
  const std::unique_ptr<icu::BreakIterator> breaks(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), status));
  ENSURE(U_SUCCESS(status));
  breaks->setText(source, status);
  ENSURE(U_SUCCESS(status));
  int32_t start = breaks->first();
  for (int32_t end = breaks->next(); end != icu::BreakIterator::DONE; start = end, end = breaks->next()) {
    use(text.substr(static_cast<size_t>(start), static_cast<size_t>(end - start)));
  }
}

struct RegexReplace::Compiled {
  std::unique_ptr<icu::RegexPattern> pattern;
  icu::UnicodeString replacement;  // with $ and \ escaped
};

RegexReplace::RegexReplace(const std::string& pattern, const std::string& replacement)
    : compiled_(std::make_unique<Compiled>()) {
  UErrorCode status = U_ZERO_ERROR;
  UParseError where;
  compiled_->pattern.reset(icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(pattern), where, status));
  if (U_FAILURE(status))
    throw std::invalid_argument("the regular expression " + pattern + " does not compile");
  std::string escaped;
  for (const char c : replacement) {
    if (c == '$' || c == '\\') escaped += '\\';
    escaped += c;
  }
  compiled_->replacement = icu::UnicodeString::fromUTF8(escaped);
}

RegexReplace::~RegexReplace() = default;
RegexReplace::RegexReplace(RegexReplace&&) noexcept = default;

std::string RegexReplace::operator()(std::string_view text) const {
  UErrorCode status = U_ZERO_ERROR;
  const auto input =
      icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
  const std::unique_ptr<icu::RegexMatcher> matcher(compiled_->pattern->matcher(input, status));
  if (U_FAILURE(status)) throw std::runtime_error("a regular expression cannot be matched");
  std::string out;
  matcher->replaceAll(compiled_->replacement, status).toUTF8String(out);
  if (U_FAILURE(status)) throw std::runtime_error("a regular expression exceeds its limits on this text");
  return out;
}

}  // namespace atelier::text
