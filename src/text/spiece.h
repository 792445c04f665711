// Reads spiece.model: SentencePiece's protocol buffer, and the normalisation it describes.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/charsmap.h"
#include "text/unigram.h"

namespace atelier::text {

// The fields of ModelProto that tokenizing needs (sentencepiece_model.proto), with the format's defaults.
struct SpieceModel {
  std::vector<Piece> pieces;
  int64_t model_type = 1;  // 1: unigram
  int64_t unk_id = 0;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Throws std::invalid_argument when the bytes are not a unigram model that this program supports.
SpieceModel parse_spiece(std::string_view bytes);

// SentencePiece's Normalizer.
class SpieceNormalizer {
 public:
  // Throws std::invalid_argument for a malformed character map.
  explicit SpieceNormalizer(const SpieceModel& model);
  std::string operator()(std::string_view text) const;

 private:
  // The first characters of the text: what stands in their place, and how many bytes they are.
  Charsmap::Rule prefix(std::string_view text) const;

  Charsmap charsmap_;
  std::vector<std::string> kept_;  // user-defined pieces, never rewritten
  bool add_dummy_prefix_, remove_extra_whitespaces_;
  std::string space_;  // what a space becomes
};

}  // namespace atelier::text
