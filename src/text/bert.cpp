// BertTokenizer: clean, isolate Chinese characters, lower-case, strip accents, split on punctuation, then
// WordPiece.
#include "text/bert.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "text/added_tokens.h"
#include "text/unicode.h"

namespace atelier::text {
namespace fs = std::filesystem;

namespace {

using WordIds = std::unordered_map<std::string, int64_t>;

uint32_t category(char32_t c) {
  return U_GET_GC_MASK(static_cast<UChar32>(c));
}
bool is_line_space(char32_t c) {
  return c == U'\t' || c == U'\n' || c == U'\r';
}
bool is_dropped(char32_t c) {
  return c == 0 || c == 0xfffd || (!is_line_space(c) && (category(c) & U_GC_C_MASK) != 0);
}
bool is_blank(char32_t c) {
  return c == U' ' || is_line_space(c) || (category(c) & U_GC_ZS_MASK) != 0;
}
bool is_accent(char32_t c) {
  return (category(c) & U_GC_MN_MASK) != 0;
}

bool is_punctuation(char32_t c) {
  const bool is_ascii_sign =
      (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
  return is_ascii_sign || (category(c) & U_GC_P_MASK) != 0;
}

// The ideograph blocks of BERT's own list, which is not Unicode's whole Han script.
bool is_chinese(char32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b820 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

std::vector<std::string> split_python(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (!is_python_space(c)) {
      append_char(word, c);
    } else if (!word.empty()) {
      words.push_back(std::exchange(word, {}));
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::string strip_accents(std::string_view text) {
  const std::string decomposed = normalized(text, Form::kNfd);
  std::string out;
  for (size_t at = 0; at < decomposed.size();) {
    const char32_t c = next_char(decomposed, at);
    if (!is_accent(c)) append_char(out, c);
  }
  return out;
}

void split_punctuation(std::string_view text, std::vector<std::string>& out) {
  bool starts_word = true;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    const bool alone = is_punctuation(c);
    if (alone || starts_word) out.emplace_back();
    append_char(out.back(), c);
    starts_word = alone;
  }
}

enum class Accents { kStrip, kStripWithLowerCase, kKeep };

struct BertRules {
  bool do_lower_case = true;
  bool do_basic_tokenize = true;
  bool isolate_chinese = true;
  Accents accents = Accents::kStripWithLowerCase;
};

BertRules parse_rules(const Json& config) {
  BertRules rules{.do_lower_case = config.value("do_lower_case", true),
                  .do_basic_tokenize = config.value("do_basic_tokenize", true),
                  .isolate_chinese = config.value("tokenize_chinese_chars", true)};
  const auto accents = config.find("strip_accents");
  if (accents != config.end() && !accents->is_null()) {
    rules.accents = accents->get<bool>() ? Accents::kStrip : Accents::kKeep;
  }
  return rules;
}

class BertTokenizer final : public Tokenizer {
 public:
  BertTokenizer(WordIds vocabulary, const TokenizerConfig& settings)
      : vocabulary_(std::move(vocabulary)),
        rules_(parse_rules(settings.config)),
        max_length_(settings.model_max_length) {
    constexpr std::pair<const char*, const char*> kSpecials[] = {{"unk_token", "[UNK]"},
                                                                 {"sep_token", "[SEP]"},
                                                                 {"pad_token", "[PAD]"},
                                                                 {"cls_token", "[CLS]"},
                                                                 {"mask_token", "[MASK]"}};
    std::vector<AddedToken> added = complete_added_tokens(settings);
    for (const auto& [name, otherwise] : kSpecials) {
      const std::string token = settings.special(name, otherwise);
      const auto is_it = [&](const AddedToken& t) { return t.content == token; };
      if (std::ranges::none_of(added, is_it)) added.push_back({.content = token});
    }
    assign_ids(
        added, [&](const std::string& token) { return find(token); },
        static_cast<int64_t>(vocabulary_.size()));
    const auto special = [&](const char* name, const char* otherwise) {
      return std::ranges::find(added, settings.special(name, otherwise), &AddedToken::content)->id;
    };
    unknown_ = special("unk_token", "[UNK]");
    start_ = special("cls_token", "[CLS]");
    end_ = special("sep_token", "[SEP]");
    pad_ = special("pad_token", "[PAD]");
    added_ = AddedTokens(std::move(added));
  }

  std::vector<int64_t> ids(std::string_view text) const override {
    std::string clean = valid_utf8(text);
    if (rules_.do_basic_tokenize && rules_.do_lower_case) clean = lower_between_added(clean);
    std::vector<int64_t> out{start_};
    for (const Span& span : added_.split(clean, is_python_space)) {
      if (span.id >= 0) {
        out.push_back(span.id);
        continue;
      }
      for (const std::string& word : words(span.text)) encode_word(word, out);
    }
    out.push_back(end_);
    return out;
  }

  int64_t pad_id() const override { return pad_; }
  int64_t model_max_length() const override { return max_length_; }

 private:
  int64_t find(const std::string& token) const {
    const auto found = vocabulary_.find(token);
    return found == vocabulary_.end() ? -1 : found->second;
  }

  // Added tokens keep their case, and are searched again in the result. A capital that this Unicode version
  // does not know stays, to be dropped as unassigned.
  std::string lower_between_added(std::string_view text) const {
    std::string out;
    for (const Span& span : added_.split(text, is_python_space)) {
      for (size_t at = 0; at < span.text.size();) {
        const size_t start = at;
        const bool keep = is_dropped(next_char(span.text, at)) || span.id >= 0;
        const std::string_view one = span.text.substr(start, at - start);
        out += keep ? std::string(one) : lower_cased(one);
      }
    }
    return out;
  }

  std::vector<std::string> words(std::string_view text) const {
    if (!rules_.do_basic_tokenize) return split_python(text);
    std::string clean;
    for (size_t at = 0; at < text.size();) {
      const char32_t c = next_char(text, at);
      if (is_dropped(c)) continue;
      const bool alone = rules_.isolate_chinese && is_chinese(c);
      if (alone) clean += ' ';
      append_char(clean, is_blank(c) ? U' ' : c);
      if (alone) clean += ' ';
    }
    const bool strip = rules_.accents == Accents::kStrip ||
                       (rules_.accents == Accents::kStripWithLowerCase && rules_.do_lower_case);
    std::vector<std::string> out;
    for (const std::string& word : split_python(normalized(clean, Form::kNfc))) {
      const std::string lowered = rules_.do_lower_case ? lower_cased(word) : word;
      split_punctuation(strip ? strip_accents(lowered) : lowered, out);
    }
    return out;
  }

  // Greedy longest match first; a word with an unmatched rest is one unknown token.
  void encode_word(std::string_view word, std::vector<int64_t>& out) const {
    constexpr size_t kMostCharacters = 100;
    std::vector<size_t> starts;
    for (size_t at = 0; at < word.size(); next_char(word, at)) starts.push_back(at);
    if (starts.size() > kMostCharacters) {
      out.push_back(unknown_);
      return;
    }
    starts.push_back(word.size());
    const size_t before = out.size();
    for (size_t first = 0; first + 1 < starts.size();) {
      size_t last = starts.size() - 1;
      int64_t id = -1;
      for (; last > first && id < 0; --last) {
        const std::string_view part = word.substr(starts[first], starts[last] - starts[first]);
        id = find(first > 0 ? "##" + std::string(part) : std::string(part));
      }
      if (id < 0) {
        out.resize(before);
        out.push_back(unknown_);
        return;
      }
      out.push_back(id);
      first = last + 1;
    }
  }

  WordIds vocabulary_;
  BertRules rules_;
  AddedTokens added_;
  int64_t unknown_ = 0, start_ = 0, end_ = 0, pad_ = 0;
  int64_t max_length_;
};

WordIds parse_lines(std::string_view text) {
  WordIds vocabulary;
  int64_t id = 0;
  for (size_t at = 0; at < text.size(); ++id) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    vocabulary[std::string(line)] = id;
    at = end + 1;
  }
  return vocabulary;
}

WordIds parse_entries(const Json& entries) {
  WordIds vocabulary;
  for (const auto& [token, id] : entries.items()) vocabulary[token] = parse_id(id, token);
  return vocabulary;
}

}  // namespace

std::unique_ptr<Tokenizer> open_bert(const TokenizerConfig& settings) {
  const fs::path lines = settings.folder / "vocab.txt";
  const fs::path whole = settings.folder / "tokenizer.json";
  const bool use_whole = !fs::exists(lines) && fs::exists(whole);
  const fs::path& file = use_whole ? whole : lines;
  WordIds vocabulary =
      use_whole
          ? parsing(file, [&] { return parse_entries(read_settings_file(file).at("model").at("vocab")); })
          : parse_lines(read_vocabulary_file(file));
  if (vocabulary.empty()) throw_malformed(file, "the vocabulary is empty");
  return parsing(settings.folder / "tokenizer_config.json",
                 [&] { return std::make_unique<BertTokenizer>(std::move(vocabulary), settings); });
}

}  // namespace atelier::text
