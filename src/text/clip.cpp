// CLIPTokenizerFast: NFC, white space to one space, lower case; CLIP's split pattern; byte-level BPE with
// "</w>".
#include "text/clip.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/unicode.h"

namespace atelier::text {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStart = "<|startoftext|>";
constexpr std::string_view kEnd = "<|endoftext|>";

std::string normalize_clip(std::string_view text) {
  const std::string composed = is_ascii(text) ? std::string(text) : normalized(text, Form::kNfc);
  std::string collapsed;
  bool in_space = false;
  for (size_t at = 0; at < composed.size();) {
    const char32_t c = next_char(composed, at);
    const bool space = is_space(c);
    if (!space) append_char(collapsed, c);
    if (space && !in_space) collapsed += ' ';
    in_space = space;
  }
  return lower_cased(collapsed);
}

// Length of the contraction at `at`, or 0.
size_t contraction(std::string_view text, size_t at) {
  for (const std::string_view c : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.substr(at).starts_with(c)) return c.size();
  }
  return 0;
}

bool is_other(char32_t c) {
  return !is_space(c) && !is_letter(c) && !is_number(c);
}

// End of the word at `at` by the pattern 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ ; `at`
// itself when none begins there.
size_t word_end(std::string_view text, size_t at) {
  if (const size_t length = contraction(text, at); length > 0) return at + length;
  size_t end = at;
  const char32_t first = next_char(text, end);
  if (is_number(first)) return end;
  if (!is_letter(first) && !is_other(first)) return at;
  const CharTest test = is_letter(first) ? is_letter : is_other;
  while (end < text.size()) {
    size_t next = end;
    if (!test(next_char(text, next))) break;
    end = next;
  }
  return end;
}

class ClipTokenizer final : public Tokenizer {
 public:
  ClipTokenizer(const TokenizerConfig& settings, const Vocabulary& vocabulary, const Merges& merges)
      : start_(required(settings, vocabulary, "bos_token", kStart)),
        end_(required(settings, vocabulary, "eos_token", kEnd)),
        pad_(required(settings, vocabulary, "pad_token", kEnd)),
        max_length_(settings.model_max_length),
        bpe_(vocabulary, merges, "</w>", required(settings, vocabulary, "unk_token", kEnd)) {
    std::vector<AddedToken> added = complete_added_tokens(settings);
    for (const std::string_view content : {kStart, kEnd}) {
      const bool known =
          std::ranges::any_of(added, [&](const AddedToken& t) { return t.content == content; });
      if (!known) added.push_back({.content = std::string(content), .normalized = true});
    }
    assign_ids(
        added, [&](const std::string& token) { return find(vocabulary, token); },
        static_cast<int64_t>(vocabulary.size()));
    splitter_ = FastSplitter(std::move(added), normalize_clip);
  }

  std::vector<int64_t> ids(std::string_view text) const override {
    std::vector<int64_t> out{start_};
    const std::string clean = valid_utf8(text);
    splitter_.split(
        clean, [&](int64_t id) { out.push_back(id); },
        [&](std::string_view part, bool) { encode_words(part, out); });
    out.push_back(end_);
    return out;
  }

  int64_t pad_id() const override { return pad_; }
  int64_t model_max_length() const override { return max_length_; }

 private:
  static int64_t find(const Vocabulary& vocabulary, const std::string& token) {
    const auto found = vocabulary.find(token);
    return found == vocabulary.end() ? -1 : found->second;
  }

  static int32_t required(const TokenizerConfig& settings, const Vocabulary& vocabulary,
                          std::string_view name, std::string_view otherwise) {
    const std::string token = settings.special(name, otherwise);
    int64_t id = find(vocabulary, token);
    for (const AddedToken& added : settings.added) {
      if (id < 0 && added.content == token) id = added.id;
    }
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
      throw std::invalid_argument(str("the ", name, " \"", token, "\" is not in the vocabulary"));
    }
    return static_cast<int32_t>(id);
  }

  void encode_words(std::string_view text, std::vector<int64_t>& out) const {
    for (size_t at = 0; at < text.size();) {
      const size_t end = word_end(text, at);
      if (end > at) {
        bpe_.encode(text.substr(at, end - at), out);
        at = end;
      } else {
        next_char(text, at);
      }
    }
  }

  int64_t start_, end_, pad_, max_length_;
  ByteLevelBpe bpe_;
  FastSplitter splitter_;
};

Vocabulary parse_vocabulary(const Json& entries) {
  Vocabulary vocabulary;
  vocabulary.reserve(entries.size());
  for (const auto& [token, id] : entries.items()) {
    vocabulary.emplace(token, static_cast<int32_t>(parse_id(id, token)));
  }
  return vocabulary;
}

std::pair<std::string, std::string> parse_merge(std::string_view line) {
  constexpr std::string_view kBlank = " \t\r";
  std::vector<std::string> words;
  for (size_t at = line.find_first_not_of(kBlank); at != std::string_view::npos;) {
    const size_t end = std::min(line.find_first_of(kBlank, at), line.size());
    words.emplace_back(line.substr(at, end - at));
    at = line.find_first_not_of(kBlank, end);
  }
  if (words.size() != 2)
    throw std::invalid_argument(str("\"", line.substr(0, 60), "\" is not a merge of two tokens"));
  return {words[0], words[1]};
}

// transformers skips the first line (the version) and reads at most this many merges.
constexpr size_t kMostMerges = 49152 - 256 - 2;

Merges parse_merge_lines(std::string_view text) {
  text = strip_right(text, is_python_space);
  Merges merges;
  size_t at = std::min(text.find('\n'), text.size());
  while (at < text.size() && merges.size() < kMostMerges) {
    const size_t end = std::min(text.find('\n', at + 1), text.size());
    merges.push_back(parse_merge(text.substr(at + 1, end - at - 1)));
    at = end;
  }
  return merges;
}

Merges parse_merges(const Json& entries) {
  Merges merges;
  for (const Json& entry : entries) {
    merges.push_back(entry.is_string()
                         ? parse_merge(entry.get_ref<const std::string&>())
                         : std::pair{entry.at(0).get<std::string>(), entry.at(1).get<std::string>()});
  }
  return merges;
}

}  // namespace

std::unique_ptr<Tokenizer> open_clip(const TokenizerConfig& settings) {
  const fs::path vocabulary_file = settings.folder / "vocab.json";
  const fs::path merges_file = settings.folder / "merges.txt";
  const fs::path whole_file = settings.folder / "tokenizer.json";
  const bool is_split = fs::exists(vocabulary_file) || fs::exists(merges_file) || !fs::exists(whole_file);
  fs::path file = is_split ? vocabulary_file : whole_file;
  try {
    if (!is_split) {
      const Json model = read_settings_file(file);
      return parsing(file, [&] {
        return std::make_unique<ClipTokenizer>(settings, parse_vocabulary(model.at("model").at("vocab")),
                                               parse_merges(model.at("model").at("merges")));
      });
    }
    const Json entries = read_settings_file(file);
    const Vocabulary vocabulary = parsing(file, [&] { return parse_vocabulary(entries); });
    file = merges_file;
    const Merges merges = parse_merge_lines(read_vocabulary_file(file));
    return std::make_unique<ClipTokenizer>(settings, vocabulary, merges);
  } catch (const std::invalid_argument& e) {
    throw_malformed(file, e.what());
  }
}

}  // namespace atelier::text
