// T5TokenizerFast: the pipeline of tokenizer.json with a unigram model, or the same made from spiece.model.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "text/added_tokens.h"
#include "text/pipeline.h"
#include "text/spiece.h"
#include "text/t5.h"
#include "text/unicode.h"
#include "text/unigram.h"

namespace atelier::text {
namespace fs = std::filesystem;

namespace {

// Everything a fast tokenizer is made of.
struct Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Unigram model;
  std::vector<AddedToken> added;
  SpecialTokens frame;
};

class T5FastTokenizer final : public Tokenizer {
 public:
  T5FastTokenizer(Parts parts, const TokenizerConfig& settings)
      : parts_(std::move(parts)), max_length_(settings.model_max_length) {
    const auto find = [&](const std::string& token) { return parts_.model.find(token); };
    assign_ids(parts_.added, find, parts_.model.size());
    const std::string pad = settings.special("pad_token", "<pad>");
    pad_ = std::max(find_added(parts_.added, pad), find(pad));
    if (pad_ < 0) throw std::invalid_argument(str("the pad_token \"", pad, "\" is not in the vocabulary"));
    splitter_ = FastSplitter(parts_.added, parts_.normalizer);
  }

  std::vector<int64_t> ids(std::string_view text) const override {
    std::vector<int64_t> out = parts_.frame.before;
    const std::string clean = valid_utf8(text);
    splitter_.split(
        clean, [&](int64_t id) { out.push_back(id); },
        [&](std::string_view part, bool is_start) {
          for (const std::string& word : parts_.pre_tokenizer(part, is_start)) parts_.model.encode(word, out);
        });
    out.insert(out.end(), parts_.frame.after.begin(), parts_.frame.after.end());
    return out;
  }

  int64_t pad_id() const override { return pad_; }
  int64_t model_max_length() const override { return max_length_; }

 private:
  Parts parts_;
  FastSplitter splitter_;
  int64_t pad_ = 0;
  int64_t max_length_;
};

Unigram parse_model(const Json& model) {
  const auto type = model.value("type", "");
  if (type != "Unigram") {
    throw std::invalid_argument(str("its model is \"", type, "\"; Unigram was expected of a T5 tokenizer"));
  }
  std::vector<Piece> pieces;
  pieces.reserve(model.at("vocab").size());
  for (const Json& entry : model.at("vocab")) {
    pieces.push_back({.text = entry.at(0).get<std::string>(), .score = entry.at(1).get<double>()});
  }
  const Json& unk = model.at("unk_id");
  const auto unknown =
      model.value("byte_fallback", false) ? Unigram::Unknown::kBytes : Unigram::Unknown::kUnk;
  return {std::move(pieces), unk.is_null() ? -1 : parse_id(unk, "unk_id"), Unigram::Dialect::kTokenizers,
          unknown};
}

// tokenizer.json's added tokens; those of tokenizer_config.json replace equal ones and join.
std::vector<AddedToken> merge_added(const Json& listed, const TokenizerConfig& settings) {
  std::vector<AddedToken> all;
  for (const Json& entry : listed) all.push_back(parse_added_token(entry));
  for (const AddedToken& token : complete_added_tokens(settings)) {
    const auto known = std::ranges::find(all, token.content, &AddedToken::content);
    if (known == all.end()) {
      all.push_back(token);
    } else if (token.id >= 0) {
      const int64_t id = known->id;
      *known = token;
      known->id = id;
    }
  }
  return all;
}

Parts parse_whole(const Json& file, const TokenizerConfig& settings) {
  return {.normalizer = parse_normalizer(file.value("normalizer", Json())),
          .pre_tokenizer = parse_pre_tokenizer(file.value("pre_tokenizer", Json())),
          .model = parse_model(file.at("model")),
          .added = merge_added(file.value("added_tokens", Json::array()), settings),
          .frame = parse_post_processor(file.value("post_processor", Json()))};
}

// What convert_slow_tokenizer.py makes of spiece.model. Byte fallback is dropped, as there.
Parts convert_spiece(SpieceModel model, const TokenizerConfig& settings) {
  std::vector<AddedToken> added = complete_added_tokens(settings);
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    const bool is_added = piece.type == PieceType::kControl || piece.type == PieceType::kUserDefined;
    if (is_added && find_added(added, piece.text) < 0) {
      added.push_back({.content = piece.text, .id = static_cast<int64_t>(id)});
    }
  }
  for (int64_t i = extra_ids(settings); i-- > 0;) {
    const std::string name = str("<extra_id_", i, ">");
    model.pieces.push_back({.text = name});
    const auto is_it = [&](const AddedToken& token) { return token.content == name; };
    if (std::ranges::none_of(added, is_it)) {
      added.push_back({.content = name, .id = static_cast<int64_t>(model.pieces.size()) - 1});
    }
  }
  const bool prefix = settings.config.value("add_prefix_space", true);
  Parts parts{
      .normalizer = spiece_fast_normalizer(model.charsmap),
      .pre_tokenizer = metaspace("\u2581", prefix ? Prefix::kAlways : Prefix::kNever, /*split=*/true),
      .model = {std::move(model.pieces), model.unk_id, Unigram::Dialect::kTokenizers, Unigram::Unknown::kUnk},
      .added = std::move(added)};
  const int64_t end = parts.model.find("</s>");
  if (end < 0) throw std::invalid_argument("it has no </s>");
  parts.frame.after = {end};
  return parts;
}

}  // namespace

std::unique_ptr<Tokenizer> open_t5_fast(const TokenizerConfig& settings) {
  const fs::path whole = settings.folder / "tokenizer.json";
  const fs::path file = fs::exists(whole) ? whole : settings.folder / "spiece.model";
  try {
    return parsing(file, [&] {
      Parts parts = file == whole ? parse_whole(read_settings_file(file), settings)
                                  : convert_spiece(parse_spiece(read_vocabulary_file(file)), settings);
      return std::make_unique<T5FastTokenizer>(std::move(parts), settings);
    });
  } catch (const std::invalid_argument& e) {
    throw_malformed(file, e.what());
  }
}

}  // namespace atelier::text
