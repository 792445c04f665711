// The steps of tokenizer.json around the model: normaliser, pre-tokenizer and post-processor.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atelier::text {

using Normalizer = std::function<std::string(std::string_view)>;

// Null means no normalisation. Throws std::invalid_argument for a step that is not supported, Json::exception
// for a malformed one.
Normalizer parse_normalizer(const Json& value);
// What T5TokenizerFast makes of spiece.model's character map: the map, no space at the end, runs of spaces to
// one mark.
Normalizer spiece_fast_normalizer(std::string_view charsmap);

// Splits a normalised stretch into words; `is_start` when it begins the whole input.
using PreTokenizer = std::function<std::vector<std::string>(std::string_view, bool is_start)>;

enum class Prefix { kAlways, kFirst, kNever };

PreTokenizer parse_pre_tokenizer(const Json& value);
// Spaces become the mark, which opens every word.
PreTokenizer metaspace(std::string mark, Prefix prefix, bool split);

// Special tokens that a post-processor puts around a single sequence.
struct SpecialTokens {
  std::vector<int64_t> before, after;
};
SpecialTokens parse_post_processor(const Json& value);

}  // namespace atelier::text
