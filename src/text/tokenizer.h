// Tokenizers of the text encoders: text in, the ids that the reference library gives for the same folder out.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

namespace atelier::text {

// Ids and attention mask (1 for a token, 0 for padding), both of the length asked for.
struct Encoding {
  std::vector<int64_t> ids, mask;
};

// Immutable once opened: any number of threads may use one tokenizer. Text is UTF-8; malformed bytes count as
// U+FFFD.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Ids with the special tokens around them, not truncated.
  virtual std::vector<int64_t> ids(std::string_view text) const = 0;
  // Truncates at the right keeping the closing special token, pads at the right. Throws Error(kUsage) when
  // max_length has no room for the special tokens.
  Encoding encode(std::string_view text, int64_t max_length) const;
  virtual int64_t pad_id() const = 0;
  // From tokenizer_config.json; the largest int64 where unset.
  virtual int64_t model_max_length() const = 0;
};

// Opens a tokenizer folder (diffusers layout). The class comes from tokenizer_config.json and from which
// files are there: T5 folders with tokenizer.json follow T5TokenizerFast, those with spiece.model alone the
// slow T5Tokenizer (which differs in unknown characters) unless the class name ends in Fast. CLIP is
// CLIPTokenizerFast, BERT the slow BertTokenizer. Throws Error(kCheckpoint) naming the file and what to do.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder);

}  // namespace atelier::text
