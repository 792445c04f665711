// Byte-pair merging of one word, as the tokenizers library does it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace atelier::text {

using Vocabulary = std::unordered_map<std::string, int32_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

// Byte-level BPE whose words end in a suffix ("</w>" for CLIP).
class ByteLevelBpe {
 public:
  // Throws std::invalid_argument when a merge names a token that the vocabulary lacks.
  ByteLevelBpe(const Vocabulary& vocabulary, const Merges& merges, std::string_view suffix, int32_t unknown);

  // Appends the ids of one word, given as its UTF-8 bytes.
  void encode(std::string_view word, std::vector<int64_t>& ids) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t result;
  };
  const Merge* find(int32_t left, int32_t right) const;

  int32_t inside_[256];  // id of a byte within a word
  int32_t last_[256];    // id of a word's last byte
  std::unordered_map<uint64_t, Merge> merges_;
};

}  // namespace atelier::text
