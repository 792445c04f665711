// Padding and truncation, and the choice of a tokenizer class for a folder.
#include "text/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "text/bert.h"
#include "text/clip.h"
#include "text/settings.h"
#include "text/t5.h"
#include "text/unicode.h"

namespace atelier::text {
namespace fs = std::filesystem;

Encoding Tokenizer::encode(std::string_view text, int64_t max_length) const {
  Encoding out{.ids = ids(text), .mask = {}};
  const auto length = static_cast<int64_t>(out.ids.size());
  out.is_cut = length > max_length;
  // The class that never doubles its closing token makes room for one before it looks whether there is one.
  if (out.is_cut || (length == max_length && !doubles_closing())) {
    const auto specials = static_cast<int64_t>(ids("").size());
    if (max_length < specials) {
      throw Error(Kind::kUsage,
                  str("cannot encode a prompt into ", max_length, " tokens: the special tokens alone take ",
                      specials, "; ask for a greater length"));
    }
    const int64_t closing = out.ids.empty() ? 0 : out.ids.back();
    out.ids.resize(static_cast<size_t>(max_length - (specials > 0 ? 1 : 0)));
    const bool is_closed = !doubles_closing() && !out.ids.empty() && out.ids.back() == closing;
    if (specials > 0 && !is_closed) out.ids.push_back(closing);
  }
  out.mask.assign(out.ids.size(), 1);
  out.ids.resize(static_cast<size_t>(std::max<int64_t>(max_length, 0)), pad_id());
  out.mask.resize(out.ids.size(), 0);
  return out;
}

std::string left_out(const Tokenizer& tokenizer, std::string_view text, int64_t max_length) {
  const auto fits = [&](std::string_view part) { return std::ssize(tokenizer.ids(part)) <= max_length; };
  if (fits(text)) return {};
  const std::string clean = valid_utf8(text);
  std::vector<size_t> starts;  // of the characters
  for (size_t at = 0; at < clean.size(); next_char(clean, at)) starts.push_back(at);
  const auto first = std::partition_point(starts.begin(), starts.end(), [&](size_t at) {
    size_t end = at;
    next_char(clean, end);
    return fits(std::string_view(clean).substr(0, end));
  });
  const size_t from = first == starts.end() ? clean.size() : *first;
  return std::string(strip_left(std::string_view(clean).substr(from), is_space));
}

namespace {

enum class Family { kClip, kT5, kBert };

// For folders whose configuration does not say (or says only "PreTrainedTokenizerFast").
Family family_from_files(const fs::path& folder) {
  if (fs::exists(folder / "spiece.model")) return Family::kT5;
  if (fs::exists(folder / "merges.txt")) return Family::kClip;
  if (fs::exists(folder / "vocab.txt")) return Family::kBert;
  if (fs::exists(folder / "tokenizer.json")) {
    const fs::path file = folder / "tokenizer.json";
    const std::string model =
        parsing(file, [&] { return read_settings_file(file).at("model").value("type", ""); });
    if (model == "BPE") return Family::kClip;
    if (model == "Unigram") return Family::kT5;
    if (model == "WordPiece") return Family::kBert;
    throw Error(Kind::kCheckpoint, str(file.string(), " holds a tokenizer model \"", model,
                                       "\"; BPE (CLIP), Unigram (T5) and WordPiece (BERT) are supported"));
  }
  throw Error(
      Kind::kCheckpoint,
      str("no tokenizer in ", folder.string(),
          ": expected tokenizer.json, spiece.model, vocab.json with merges.txt, or vocab.txt; download the "
          "folder again"));
}

Family family_of(const TokenizerConfig& settings) {
  const std::string& name = settings.tokenizer_class;
  if (name.starts_with("CLIPTokenizer")) return Family::kClip;
  if (name.starts_with("T5Tokenizer") || name.starts_with("MT5Tokenizer") ||
      name.starts_with("UMT5Tokenizer")) {
    return Family::kT5;
  }
  if (name.starts_with("BertTokenizer")) return Family::kBert;
  if (name.empty() || name.starts_with("PreTrainedTokenizer") || name.starts_with("TokenizersBackend")) {
    return family_from_files(settings.folder);
  }
  throw Error(Kind::kCheckpoint,
              str("the tokenizer in ", settings.folder.string(), " is to be a \"", name,
                  "\"; CLIPTokenizer, T5Tokenizer, MT5Tokenizer and BertTokenizer are supported"));
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& folder, std::string_view class_name) {
  if (!fs::is_directory(folder)) {
    throw Error(Kind::kCheckpoint, str("no tokenizer folder at ", folder.string(),
                                       "; check the model's path or download it again"));
  }
  TokenizerConfig settings = read_settings(folder);
  if (!class_name.empty()) settings.tokenizer_class = class_name;
  const bool is_slow = !class_name.empty() && !class_name.ends_with("Fast");
  switch (family_of(settings)) {
    case Family::kClip:
      return open_clip(settings);
    case Family::kT5:
      return open_t5(settings, is_slow ? T5Choice::kSlow : T5Choice::kByFiles);
    case Family::kBert:
      return open_bert(settings);
  }
  return nullptr;
}

}  // namespace atelier::text
