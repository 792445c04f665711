// Viterbi search over the pieces, after SentencePiece's EncodeOptimized and its port in the tokenizers
// library.
#include "text/unigram.h"

#include <algorithm>
#include <cfloat>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "text/unicode.h"

namespace atelier::text {
namespace {

constexpr double kUnknownPenalty = 10.0;

}  // namespace

Unigram::Unigram(std::vector<Piece> pieces, int64_t unk_id, Dialect dialect, Unknown unknown)
    : pieces_(std::move(pieces)), unk_id_(unk_id), dialect_(dialect) {
  if (unk_id_ < 0 || unk_id_ >= size()) throw std::invalid_argument("the vocabulary has no unknown token");
  by_text_.reserve(pieces_.size());
  double least = std::numeric_limits<double>::infinity();
  double greatest = FLT_MIN;  // SentencePiece starts from the least positive number, not the most negative
  for (size_t id = 0; id < pieces_.size(); ++id) {
    const Piece& piece = pieces_[id];
    by_text_[piece.text] = static_cast<int64_t>(id);
    if (dialect_ == Dialect::kSentencePiece && piece.type != PieceType::kNormal) continue;
    least = std::min(least, piece.score);
    greatest = std::max(greatest, piece.score);
  }
  unknown_score_ = least - kUnknownPenalty;
  greatest_score_ = greatest;
  byte_ids_.fill(unk_id_);
  has_bytes_ = unknown == Unknown::kBytes;
  for (size_t byte = 0; has_bytes_ && byte < byte_ids_.size(); ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
    if (const int64_t id = find(name); id >= 0) byte_ids_[byte] = id;
  }
  build_search();
}

bool Unigram::is_searched(const Piece& piece) const {
  if (piece.text.empty()) return false;
  return dialect_ == Dialect::kTokenizers || piece.type == PieceType::kNormal ||
         piece.type == PieceType::kUserDefined;
}

void Unigram::build_search() {
  for (const auto& [text, id] : by_text_) {
    if (is_searched(pieces_[static_cast<size_t>(id)])) sorted_.push_back(id);
  }
  std::ranges::sort(sorted_, {}, [&](int64_t id) { return piece(id); });
  for (uint32_t i = 0; i < sorted_.size(); ++i) {
    ByteRange& range = by_first_byte_[static_cast<unsigned char>(piece(sorted_[i])[0])];
    if (range.end == 0) range.begin = i;
    range.end = i + 1;
  }
}

int64_t Unigram::find(const std::string& piece) const {
  const auto found = by_text_.find(piece);
  return found == by_text_.end() ? -1 : found->second;
}

// The pieces of `range`, equal in `depth` bytes, whose next byte is `byte`.
Unigram::ByteRange Unigram::narrow(ByteRange range, size_t depth, unsigned char byte) const {
  const auto next = [&](int64_t id) {
    const std::string_view text = piece(id);
    return text.size() > depth ? static_cast<int>(static_cast<unsigned char>(text[depth])) : -1;
  };
  const auto all = std::ranges::subrange(sorted_.begin() + range.begin, sorted_.begin() + range.end);
  const auto found = std::ranges::equal_range(all, static_cast<int>(byte), {}, next);
  return {static_cast<uint32_t>(found.begin() - sorted_.begin()),
          static_cast<uint32_t>(found.end() - sorted_.begin())};
}

double Unigram::score_of(const Piece& piece) const {
  if (dialect_ == Dialect::kTokenizers || piece.type != PieceType::kUserDefined) return piece.score;
  const auto length = static_cast<float>(piece.text.size());
  return static_cast<double>(length * static_cast<float>(greatest_score_) - 0.1F);  // always preferred
}

template <class Score>
std::vector<Unigram::PathNode> Unigram::best_path(std::string_view text) const {
  struct Node {
    Score score = 0;
    int64_t start = -1;
    int64_t id = 0;
  };
  std::vector<Node> ends(text.size() + 1);
  const auto offer = [&](size_t end, Score score, size_t start, int64_t id) {
    Node& node = ends[end];
    if (node.start >= 0 && !(score > node.score)) return;
    node = {score, static_cast<int64_t>(start), id};
  };
  for (size_t start = 0; start < text.size();) {
    const Score so_far = ends[start].score;
    const size_t one = std::min(char_length(text[start]), text.size() - start);
    bool has_single = false;
    ByteRange range = by_first_byte_[static_cast<unsigned char>(text[start])];
    for (size_t depth = 1; range.begin < range.end; ++depth) {
      const int64_t first = sorted_[range.begin];
      if (this->piece(first).size() == depth) {
        offer(start + depth, static_cast<Score>(score_of(pieces_[static_cast<size_t>(first)])) + so_far,
              start, first);
        has_single = has_single || depth == one;
      }
      if (start + depth >= text.size()) break;
      range = narrow(range, depth, static_cast<unsigned char>(text[start + depth]));
    }
    if (!has_single) offer(start + one, static_cast<Score>(unknown_score_) + so_far, start, unk_id_);
    start += one;
  }
  std::vector<PathNode> path;
  for (auto end = static_cast<int64_t>(text.size()); end > 0; end = path.back().start) {
    path.push_back({ends[static_cast<size_t>(end)].start, ends[static_cast<size_t>(end)].id});
  }
  std::ranges::reverse(path);
  return path;
}

void Unigram::append_unknown(std::string_view run, std::vector<int64_t>& ids) const {
  const auto byte_id = [&](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  const bool all_known =
      has_bytes_ && std::ranges::none_of(run, [&](char c) { return byte_id(c) == unk_id_; });
  if (!all_known) {
    ids.push_back(unk_id_);
    return;
  }
  for (const char c : run) ids.push_back(byte_id(c));
}

void Unigram::encode(std::string_view text, std::vector<int64_t>& ids) const {
  const std::vector<PathNode> path =
      dialect_ == Dialect::kSentencePiece ? best_path<float>(text) : best_path<double>(text);
  for (size_t i = 0; i < path.size();) {
    if (path[i].id != unk_id_) {
      ids.push_back(path[i++].id);
      continue;
    }
    const auto start = static_cast<size_t>(path[i].start);
    while (i < path.size() && path[i].id == unk_id_) ++i;
    const size_t end = i < path.size() ? static_cast<size_t>(path[i].start) : text.size();
    append_unknown(text.substr(start, end - start), ids);
  }
}

}  // namespace atelier::text
