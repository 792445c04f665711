// T5Tokenizer of transformers 4: SentencePiece on the stretches between added tokens.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "text/added_tokens.h"
#include "text/spiece.h"
#include "text/t5.h"
#include "text/unicode.h"
#include "text/unigram.h"

namespace atelier::text {
namespace fs = std::filesystem;

int64_t extra_ids(const TokenizerConfig& settings) {
  constexpr int64_t kDefault = 100;
  constexpr int64_t kMost = 100000;
  return whole_number(settings.config.value("extra_ids", Json(kDefault)), 0, kMost,
                      "tokenizer_config.json says extra_ids");
}

int64_t find_added(const std::vector<AddedToken>& added, std::string_view content) {
  const auto found = std::ranges::find(added, content, &AddedToken::content);
  return found == added.end() ? -1 : found->id;
}

std::unique_ptr<Tokenizer> open_t5(const TokenizerConfig& settings, T5Choice choice) {
  const bool has_whole = fs::exists(settings.folder / "tokenizer.json");
  const bool has_spiece = fs::exists(settings.folder / "spiece.model");
  if (!has_whole && !has_spiece) {
    throw Error(Kind::kCheckpoint,
                str("the T5 tokenizer in ", settings.folder.string(),
                    " has neither tokenizer.json nor spiece.model; download the folder again"));
  }
  const bool reads_whole = has_whole && !(choice == T5Choice::kSlow && has_spiece);
  return reads_whole || settings.tokenizer_class.ends_with("Fast") ? open_t5_fast(settings)
                                                                   : open_t5_slow(settings);
}

namespace {

constexpr std::string_view kMark = "\u2581";

// The sentinels that the class defines by itself, then what the folder says, then missing special tokens.
std::vector<AddedToken> slow_added_tokens(const TokenizerConfig& settings, const Unigram& model) {
  const auto is_sentinel = [](const AddedToken& token) {
    return token.content.find("<extra_id_") != std::string::npos;
  };
  const int64_t extra = extra_ids(settings);
  const int64_t listed = std::ranges::count_if(settings.additional, is_sentinel);
  std::vector<AddedToken> added = complete_added_tokens(settings);
  for (int64_t i = 0; i < (listed > 0 ? listed : extra); ++i) {
    AddedToken token{.content = str("<extra_id_", i, ">"), .lstrip = true, .rstrip = true};
    token.id = model.size() - 1 + extra - i;
    const auto known = std::ranges::find(added, token.content, &AddedToken::content);
    if (known == added.end()) {
      added.push_back(std::move(token));
    } else if (known->id < 0) {
      *known = std::move(token);
    }
  }
  for (const std::string_view content : {"</s>", "<unk>", "<pad>"}) {
    const std::string name = content == "</s>" ? "eos_token" : content == "<unk>" ? "unk_token" : "pad_token";
    const std::string token = settings.special(name, content);
    const auto is_it = [&](const AddedToken& t) { return t.content == token; };
    if (std::ranges::none_of(added, is_it)) added.push_back({.content = token});
  }
  assign_ids(
      added, [&](const std::string& token) { return model.find(token); }, model.size() + extra);
  return added;
}

class T5SlowTokenizer final : public Tokenizer {
 public:
  T5SlowTokenizer(const SpieceModel& spiece, const TokenizerConfig& settings)
      : normalizer_(spiece),
        model_(spiece.pieces, spiece.unk_id, Unigram::Dialect::kSentencePiece,
               spiece.byte_fallback ? Unigram::Unknown::kBytes : Unigram::Unknown::kUnk),
        unknown_(settings.special("unk_token", "<unk>")),
        is_legacy_(is_legacy(settings)),
        add_prefix_(settings.config.value("add_prefix_space", true)),
        max_length_(settings.model_max_length) {
    const std::vector<AddedToken> tokens = slow_added_tokens(settings, model_);
    end_ = find_added(tokens, settings.special("eos_token", "</s>"));
    pad_ = find_added(tokens, settings.special("pad_token", "<pad>"));
    added_ = AddedTokens(tokens);
    if (!is_legacy_) unknown_length_ = spiece_ids(unknown_).size();
  }

  static bool is_legacy(const TokenizerConfig& settings) {
    const auto found = settings.config.find("legacy");
    return found == settings.config.end() || found->is_null() || found->get<bool>();
  }

  std::vector<int64_t> ids(std::string_view text) const override {
    std::string clean = valid_utf8(text);
    if (!is_legacy_ && !clean.empty()) clean = with_prefix(clean);
    const std::vector<Span> spans = added_.split(clean, is_python_space);
    std::vector<int64_t> out;
    for (size_t i = 0; i < spans.size(); ++i) {
      if (spans[i].id >= 0) {
        out.push_back(spans[i].id);
        continue;
      }
      const std::vector<int64_t> part = encode_part(spans[i].text);
      const bool is_lone_prefix =
          !is_legacy_ && i == 0 && spans.size() > 1 && part.size() == 1 && model_.piece(part[0]) == kMark;
      if (!is_lone_prefix) out.insert(out.end(), part.begin(), part.end());
    }
    if (out.empty() || out.back() != end_) out.push_back(end_);  // the class never doubles it
    return out;
  }

  int64_t pad_id() const override { return pad_; }
  bool doubles_closing() const override { return false; }
  int64_t model_max_length() const override { return max_length_; }

 private:
  std::string with_prefix(std::string_view text) const {
    std::string out = add_prefix_ ? std::string(kMark) : std::string();
    for (size_t at = 0; at < text.size();) {
      const size_t found = std::min(text.find(kMark, at), text.size());
      out += text.substr(at, found - at);
      if (found < text.size()) out += ' ';
      at = found + (found < text.size() ? kMark.size() : 0);
    }
    return out;
  }

  std::vector<int64_t> spiece_ids(std::string_view text) const {
    std::vector<int64_t> out;
    model_.encode(normalizer_(text), out);
    return out;
  }

  // Without the legacy flag SentencePiece adds no mark of its own; a leading one survives only behind other
  // text.
  std::vector<int64_t> encode_part(std::string_view text) const {
    if (is_legacy_ || !(text.starts_with(kMark) || text.starts_with(' '))) return spiece_ids(text);
    std::vector<int64_t> out = spiece_ids(unknown_ + std::string(text));
    if (out.size() >= unknown_length_)
      out.erase(out.begin(), out.begin() + static_cast<int64_t>(unknown_length_));
    return out;
  }

  SpieceNormalizer normalizer_;
  Unigram model_;
  AddedTokens added_;
  std::string unknown_;
  bool is_legacy_, add_prefix_;
  int64_t max_length_;
  int64_t end_ = 0, pad_ = 0;
  size_t unknown_length_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> open_t5_slow(const TokenizerConfig& settings) {
  const fs::path file = settings.folder / "spiece.model";
  const std::string bytes = read_vocabulary_file(file);
  try {
    return parsing(settings.folder / "tokenizer_config.json", [&] {
      SpieceModel model = parse_spiece(bytes);
      if (!T5SlowTokenizer::is_legacy(settings)) model.add_dummy_prefix = false;
      return std::make_unique<T5SlowTokenizer>(model, settings);
    });
  } catch (const std::invalid_argument& e) {
    throw_malformed(file, e.what());
  }
}

}  // namespace atelier::text
