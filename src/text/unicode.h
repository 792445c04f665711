// Unicode on UTF-8 strings through ICU. Every function except valid_utf8 expects well-formed UTF-8.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::text {

// A copy in which every malformed sequence is U+FFFD.
std::string valid_utf8(std::string_view text);

bool is_ascii(std::string_view text);
// Decodes the character at `at` and moves behind it.
char32_t next_char(std::string_view text, size_t& at);
void append_char(std::string& out, char32_t c);
// Bytes of the character that begins with this byte.
size_t char_length(char first);

enum class Form { kNfc, kNfd, kNfkc, kNfkd };
std::string normalized(std::string_view text, Form form);
// Character by character, as Rust and single-character Python do: no final sigma, no locale.
std::string lower_cased(std::string_view text);

// Unicode White_Space: what Rust calls white space and regular expressions call \s.
bool is_space(char32_t c);
// White_Space and the separators U+001C to U+001F, which Python's str.strip and str.split also take.
bool is_python_space(char32_t c);
bool is_letter(char32_t c);  // general category L
bool is_number(char32_t c);  // general category N
bool is_word(char32_t c);    // \w of regular expressions

// The text without characters of a kind at one end.
using CharTest = bool (*)(char32_t);
std::string_view strip_left(std::string_view text, CharTest test);
std::string_view strip_right(std::string_view text, CharTest test);

// Calls `use` with every extended grapheme cluster in order.
void for_each_grapheme(std::string_view text, const std::function<void(std::string_view)>& use);

// Replaces every match of an ICU regular expression by a literal text.
class RegexReplace {
 public:
  // Throws std::invalid_argument for a pattern that does not compile.
  RegexReplace(const std::string& pattern, const std::string& replacement);
  ~RegexReplace();
  RegexReplace(RegexReplace&&) noexcept;
  // Throws std::runtime_error when matching exceeds ICU's limits.
  std::string operator()(std::string_view text) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace atelier::text
