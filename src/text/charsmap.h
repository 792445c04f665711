// SentencePiece's precompiled character map: a double-array trie of the character sequences that
// normalisation rewrites.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::text {

class Charsmap {
 public:
  // A rule that applies at the start of a text: how many bytes it takes and what stands in their place.
  struct Rule {
    size_t length;
    std::string_view replacement;
  };

  // An empty blob has no rules. Throws std::invalid_argument when the blob is malformed.
  explicit Charsmap(std::string_view blob);

  // The tokenizers library takes the shortest rule, SentencePiece the longest.
  std::optional<Rule> shortest(std::string_view text) const { return find(text, /*stop_at_first=*/true); }
  std::optional<Rule> longest(std::string_view text) const { return find(text, /*stop_at_first=*/false); }

 private:
  std::optional<Rule> find(std::string_view text, bool stop_at_first) const;
  std::vector<uint32_t> units_;
  std::string replacements_;  // each ends in a zero byte
};

}  // namespace atelier::text
