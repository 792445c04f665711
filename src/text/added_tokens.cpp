// Search for added tokens with the rules of the tokenizers library (AddedVocabulary).
#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace atelier::text {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])].push_back(i);
  }
  for (auto& bucket : by_first_byte_) {
    std::ranges::stable_sort(bucket, std::ranges::greater{},
                             [&](size_t i) { return tokens_[i].content.size(); });
  }
}

const AddedToken* AddedTokens::match(std::string_view text, size_t at) const {
  for (const size_t i : by_first_byte_[static_cast<unsigned char>(text[at])]) {
    if (text.substr(at).starts_with(tokens_[i].content)) return &tokens_[i];
  }
  return nullptr;
}

namespace {

bool touches_word(std::string_view before, std::string_view after) {
  size_t at = 0;
  if (!after.empty() && is_word(next_char(after, at))) return true;
  return strip_right(before, is_word).size() != before.size();
}

}  // namespace

std::vector<Span> AddedTokens::split(std::string_view text, bool (*is_blank)(char32_t)) const {
  std::vector<Span> spans;
  size_t done = 0;
  const auto add_text = [&](size_t end) {
    if (done < end) spans.push_back({text.substr(done, end - done), -1});
  };
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = match(text, at);
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t start = at;
    size_t stop = at + token->content.size();
    at = stop;
    if (token->single_word && touches_word(text.substr(0, start), text.substr(stop))) continue;
    if (token->lstrip) start = done + strip_right(text.substr(done, start - done), is_blank).size();
    if (token->rstrip) stop = text.size() - strip_left(text.substr(stop), is_blank).size();
    add_text(start);
    spans.push_back({text.substr(start, stop - start), token->id});
    done = stop;
    at = std::max(at, stop);
  }
  add_text(text.size());
  return spans;
}

FastSplitter::FastSplitter(std::vector<AddedToken> tokens, Normalize normalize)
    : normalize_(std::move(normalize)) {
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (AddedToken& token : tokens) {
    if (token.normalized) {
      token.content = normalize_(token.content);
      normalized.push_back(std::move(token));
    } else {
      raw.push_back(std::move(token));
    }
  }
  raw_ = AddedTokens(std::move(raw));
  normalized_ = AddedTokens(std::move(normalized));
}

void FastSplitter::split(std::string_view text, const std::function<void(int64_t)>& on_token,
                         const std::function<void(std::string_view, bool)>& on_text) const {
  for (const Span& span : raw_.split(text, is_space)) {
    if (span.id >= 0) {
      on_token(span.id);
      continue;
    }
    const std::string plain = normalize_(span.text);
    for (const Span& part : normalized_.split(plain, is_space)) {
      if (part.id >= 0) {
        on_token(part.id);
      } else {
        on_text(part.text, span.text.data() == text.data() && part.text.data() == plain.data());
      }
    }
  }
}

void assign_ids(std::vector<AddedToken>& tokens, const std::function<int64_t(const std::string&)>& find,
                int64_t next) {
  for (const AddedToken& token : tokens) next = std::max(next, token.id + 1);
  for (AddedToken& token : tokens) {
    if (token.id < 0) token.id = find(token.content);
    if (token.id < 0) token.id = next++;
  }
}

}  // namespace atelier::text
