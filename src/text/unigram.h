// The unigram language model of SentencePiece: the most probable split of a text into pieces.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace atelier::text {

// The numbers are SentencePiece's.
enum class PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct Piece {
  std::string text;
  double score = 0;  // log probability
  PieceType type = PieceType::kNormal;
};

class Unigram {
 public:
  // The tokenizers library sums scores in double and may match every piece; SentencePiece sums in float and
  // matches only normal and user-defined pieces.
  enum class Dialect { kTokenizers, kSentencePiece };
  enum class Unknown { kUnk, kBytes };

  // Throws std::invalid_argument when unk_id is out of range or the vocabulary is empty.
  Unigram(std::vector<Piece> pieces, int64_t unk_id, Dialect dialect, Unknown unknown);

  // Appends the ids of a normalised text. A run of unknown characters is one unk, or its bytes' pieces.
  void encode(std::string_view text, std::vector<int64_t>& ids) const;

  // -1 where the vocabulary lacks it.
  int64_t find(const std::string& piece) const;
  int64_t size() const { return static_cast<int64_t>(pieces_.size()); }
  std::string_view piece(int64_t id) const { return pieces_[static_cast<size_t>(id)].text; }

 private:
  struct PathNode {
    int64_t start;
    int64_t id;
  };
  struct ByteRange {
    uint32_t begin = 0, end = 0;
  };
  template <class Score>
  std::vector<PathNode> best_path(std::string_view text) const;
  bool is_searched(const Piece& piece) const;
  double score_of(const Piece& piece) const;
  void build_search();
  ByteRange narrow(ByteRange range, size_t depth, unsigned char byte) const;
  void append_unknown(std::string_view run, std::vector<int64_t>& ids) const;

  std::vector<Piece> pieces_;
  int64_t unk_id_;
  Dialect dialect_;
  double unknown_score_ = 0;
  double greatest_score_ = 0;
  std::unordered_map<std::string_view, int64_t> by_text_;
  std::vector<int64_t> sorted_;  // ids of the searched pieces by their text: prefixes are ranges
  std::array<ByteRange, 256> by_first_byte_;
  std::array<int64_t, 256> byte_ids_;  // ids of <0x00> to <0xFF>; unk_id_ where there is no byte fallback
  bool has_bytes_ = false;
};

}  // namespace atelier::text
