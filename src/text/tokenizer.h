// Tokenizers of the text encoders: text in, the ids that the reference library gives for the same folder out.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::text {

// Ids and attention mask (1 for a token, 0 for padding), both of the length asked for.
struct Encoding {
  std::vector<int64_t> ids, mask;
  bool is_cut = false;  // the text did not fit
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
  // Whether the closing token comes behind a text that ends in one, or whose rest is cut off behind one.
  virtual bool doubles_closing() const { return true; }
  // From tokenizer_config.json; the largest int64 where unset.
  virtual int64_t model_max_length() const = 0;
};

// The end of a text that encode() leaves out, from the first character that no longer fits; empty
// where all does.
std::string left_out(const Tokenizer& tokenizer, std::string_view text, int64_t max_length);

// Opens a tokenizer folder (diffusers layout). class_name: as model_index.json names it; empty: what
// tokenizer_config.json and the files say, as the library's AutoTokenizer. T5's slow T5Tokenizer and its
// T5TokenizerFast differ in unknown characters: a pipeline that names the slow one reads spiece.model even
// beside tokenizer.json; without a pipeline, tokenizer.json means the fast one. CLIP is CLIPTokenizerFast,
// BERT the slow BertTokenizer. Throws Error(kCheckpoint) naming the file and what to do.
std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& folder,
                                          std::string_view class_name = {});

}  // namespace atelier::text
