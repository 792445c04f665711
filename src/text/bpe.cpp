// Byte-pair merging with a priority queue: the lowest rank first, among equals the leftmost pair.
#include "text/bpe.h"

#include <queue>
#include <stdexcept>

#include "base/error.h"
#include "text/unicode.h"

namespace atelier::text {
namespace {

// GPT-2's printable stand-in for every byte, as UTF-8.
std::string stand_in(int byte) {
  const auto is_printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  char32_t code = static_cast<char32_t>(byte);
  if (!is_printable(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += is_printable(b) ? 0 : 1;
  }
  std::string out;
  append_char(out, code);
  return out;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

struct Symbol {
  int32_t id;
  int64_t previous, next;  // -1 at the ends
  bool merged_away = false;
};

struct Candidate {
  int32_t rank;
  int64_t at;
  int32_t result;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : at > other.at;
  }
};

}  // namespace

ByteLevelBpe::ByteLevelBpe(const Vocabulary& vocabulary, const Merges& merges, std::string_view suffix,
                           int32_t unknown) {
  const auto id_or = [&](const std::string& token, int32_t otherwise) {
    const auto found = vocabulary.find(token);
    return found == vocabulary.end() ? otherwise : found->second;
  };
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = stand_in(byte);
    inside_[byte] = id_or(text, unknown);
    last_[byte] = id_or(text + std::string(suffix), unknown);
  }
  merges_.reserve(merges.size());
  int32_t rank = 0;
  for (const auto& [left, right] : merges) {
    for (const std::string& token : {left, right, left + right}) {
      if (!vocabulary.contains(token)) {
        throw std::invalid_argument(str("merge ", rank + 1, " (", left, " ", right, ") needs the token ",
                                        token, ", which the vocabulary lacks"));
      }
    }
    merges_[pair_key(vocabulary.at(left), vocabulary.at(right))] = {rank++, vocabulary.at(left + right)};
  }
}

const ByteLevelBpe::Merge* ByteLevelBpe::find(int32_t left, int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void ByteLevelBpe::encode(std::string_view word, std::vector<int64_t>& ids) const {
  const auto length = static_cast<int64_t>(word.size());
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (int64_t i = 0; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<size_t>(i)]);
    const bool is_last = i + 1 == length;
    symbols.push_back({is_last ? last_[byte] : inside_[byte], i - 1, is_last ? -1 : i + 1});
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int64_t at) {
    if (at < 0 || symbols[static_cast<size_t>(at)].next < 0) return;
    const Symbol& left = symbols[static_cast<size_t>(at)];
    const Merge* merge = find(left.id, symbols[static_cast<size_t>(left.next)].id);
    if (merge != nullptr) queue.push({merge->rank, at, merge->result});
  };
  for (int64_t i = 0; i < length; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(best.at)];
    if (left.merged_away || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = find(left.id, right.id);
    if (merge == nullptr || merge->result != best.result)
      continue;  // the pair has changed since it was offered
    left.id = merge->result;
    right.merged_away = true;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.at;
    offer(left.previous);
    offer(best.at);
  }
  for (const Symbol& symbol : symbols) {
    if (!symbol.merged_away) ids.push_back(symbol.id);
  }
}

}  // namespace atelier::text
