// Finds added tokens in a text: the first step of every tokenizer, before normalisation and splitting.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/settings.h"

namespace atelier::text {

// A stretch of the text: an added token (id >= 0) or text for the model (id == -1).
struct Span {
  std::string_view text;
  int64_t id;
};

// Leftmost match first, among those the longest.
class AddedTokens {
 public:
  AddedTokens() = default;
  // Every token has an id.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Empty stretches are left out. White space that a token takes (lstrip, rstrip) belongs to its span.
  // `is_blank` says what counts as white space.
  std::vector<Span> split(std::string_view text, bool (*is_blank)(char32_t)) const;
  bool empty() const { return tokens_.empty(); }

 private:
  const AddedToken* match(std::string_view text, size_t at) const;
  std::vector<AddedToken> tokens_;
  std::array<std::vector<size_t>, 256> by_first_byte_;  // longest first
};

// Both searches of a fast tokenizer: tokens as written in the raw text, the others in the normalised text
// between.
class FastSplitter {
 public:
  using Normalize = std::function<std::string(std::string_view)>;
  FastSplitter() = default;
  FastSplitter(std::vector<AddedToken> tokens, Normalize normalize);

  // Calls on_token(id) and on_text(normalised text, whether it starts the input) in order.
  void split(std::string_view text, const std::function<void(int64_t)>& on_token,
             const std::function<void(std::string_view, bool)>& on_text) const;

 private:
  Normalize normalize_;
  AddedTokens raw_;
  AddedTokens normalized_;
};

// Gives an id to tokens without one: what `find` says (-1: not in the vocabulary), else ids from `next` on.
void assign_ids(std::vector<AddedToken>& tokens, const std::function<int64_t(const std::string&)>& find,
                int64_t next);

}  // namespace atelier::text
