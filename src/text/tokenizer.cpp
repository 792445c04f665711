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

namespace atelier::text {
namespace fs = std::filesystem;

Encoding Tokenizer::encode(std::string_view text, int64_t max_length) const {
  Encoding out{.ids = ids(text)};
  const auto length = static_cast<int64_t>(out.ids.size());
  if (length > max_length) {
    const auto specials = static_cast<int64_t>(ids("").size());
    if (max_length < specials) {
      throw Error(Kind::kUsage,
                  str("cannot encode a prompt into ", max_length, " tokens: the special tokens alone take ",
                      specials, "; ask for a greater length"));
    }
    const int64_t closing = out.ids.back();
    out.ids.resize(static_cast<size_t>(max_length));
    if (max_length > 0) out.ids.back() = closing;
  }
  out.mask.assign(out.ids.size(), 1);
  out.ids.resize(static_cast<size_t>(std::max<int64_t>(max_length, 0)), pad_id());
  out.mask.resize(out.ids.size(), 0);
  return out;
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
              str((settings.folder / "tokenizer_config.json").string(), " names tokenizer_class \"", name,
                  "\"; CLIPTokenizer, T5Tokenizer, MT5Tokenizer and BertTokenizer are supported"));
}

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& folder) {
  if (!fs::is_directory(folder)) {
    throw Error(Kind::kCheckpoint, str("no tokenizer folder at ", folder.string(),
                                       "; check the model's path or download it again"));
  }
  const TokenizerConfig settings = read_settings(folder);
  switch (family_of(settings)) {
    case Family::kClip:
      return open_clip(settings);
    case Family::kT5:
      return open_t5(settings);
    case Family::kBert:
      return open_bert(settings);
  }
  return nullptr;
}

}  // namespace atelier::text
