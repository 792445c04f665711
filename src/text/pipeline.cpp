// Normalisers and pre-tokenizers of the tokenizers library, as far as text encoders use them.
#include "text/pipeline.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "base/error.h"
#include "text/charsmap.h"
#include "text/settings.h"
#include "text/unicode.h"

namespace atelier::text {
namespace {

std::string decode_base64(std::string_view text) {
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    uint32_t value = 0;
    if (c >= 'A' && c <= 'Z')
      value = static_cast<uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z')
      value = static_cast<uint32_t>(c - 'a') + 26;
    else if (c >= '0' && c <= '9')
      value = static_cast<uint32_t>(c - '0') + 52;
    else if (c == '+')
      value = 62;
    else if (c == '/')
      value = 63;
    else
      throw std::invalid_argument("the precompiled character map is not base64");
    bits = (bits << 6) | value;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xff);
    }
  }
  return out;
}

// Short clusters are looked up whole, others character by character: the library's own rule, which differs
// from SentencePiece's longest match.
std::string apply_charsmap(const Charsmap& charsmap, std::string_view text) {
  constexpr size_t kLongestWhole = 5;  // bytes
  std::string out;
  out.reserve(text.size());
  const auto use = [&](std::string_view cluster) {
    if (cluster.size() <= kLongestWhole) {
      if (const auto rule = charsmap.shortest(cluster)) {
        out += rule->replacement;
        return;
      }
    }
    for (size_t at = 0; at < cluster.size();) {
      const size_t start = at;
      next_char(cluster, at);
      const std::string_view one = cluster.substr(start, at - start);
      const auto rule = charsmap.shortest(one);
      out += rule ? rule->replacement : one;
    }
  };
  if (is_ascii(text) && text.find('\r') == std::string_view::npos) {  // every character is its own cluster
    for (size_t i = 0; i < text.size(); ++i) use(text.substr(i, 1));
  } else {
    for_each_grapheme(text, use);
  }
  return out;
}

Normalizer charsmap_step(std::string_view blob) {
  return [charsmap = std::make_shared<const Charsmap>(blob)](std::string_view text) {
    return apply_charsmap(*charsmap, text);
  };
}

Normalizer strip_step(bool left, bool right) {
  return [left, right](std::string_view text) {
    if (left) text = strip_left(text, is_space);
    if (right) text = strip_right(text, is_space);
    return std::string(text);
  };
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(from, at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += to;
    at = found + (found < text.size() ? from.size() : 0);
  }
  return out;
}

Normalizer replace_step(const Json& value) {
  const auto content = value.at("content").get<std::string>();
  const Json& pattern = value.at("pattern");
  if (pattern.contains("String")) {
    const auto from = pattern["String"].get<std::string>();
    if (from.empty()) throw std::invalid_argument("a Replace step has an empty pattern");
    return [from, content](std::string_view text) { return replace_all(text, from, content); };
  }
  auto replace = std::make_shared<const RegexReplace>(pattern.at("Regex").get<std::string>(), content);
  return [replace](std::string_view text) { return (*replace)(text); };
}

Normalizer form_step(Form form) {
  return
      [form](std::string_view text) { return is_ascii(text) ? std::string(text) : normalized(text, form); };
}

Normalizer sequence_step(std::vector<Normalizer> steps) {
  return [steps = std::move(steps)](std::string_view text) {
    std::string out(text);
    for (const Normalizer& step : steps) out = step(out);
    return out;
  };
}

std::vector<std::string> split_white_space(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (!is_space(c)) {
      append_char(word, c);
    } else if (!word.empty()) {
      words.push_back(std::exchange(word, {}));
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

Prefix parse_prefix(const Json& value) {
  if (const auto scheme = value.find("prepend_scheme"); scheme != value.end()) {
    const auto name = scheme->get<std::string>();
    if (name == "always") return Prefix::kAlways;
    if (name == "first") return Prefix::kFirst;
    if (name == "never") return Prefix::kNever;
    throw std::invalid_argument(str("prepend_scheme \"", name, "\" is not supported"));
  }
  return value.value("add_prefix_space", true) ? Prefix::kAlways : Prefix::kNever;
}

PreTokenizer sequence_of(std::vector<PreTokenizer> steps) {
  return [steps = std::move(steps)](std::string_view text, bool is_start) {
    std::vector<std::string> words{std::string(text)};
    for (const PreTokenizer& step : steps) {
      std::vector<std::string> next;
      for (size_t i = 0; i < words.size(); ++i) {
        for (std::string& word : step(words[i], is_start && i == 0)) next.push_back(std::move(word));
      }
      words = std::move(next);
    }
    return words;
  };
}

}  // namespace

Normalizer parse_normalizer(const Json& value) {
  if (value.is_null()) return [](std::string_view text) { return std::string(text); };
  const auto type = value.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<Normalizer> steps;
    for (const Json& step : value.at("normalizers")) steps.push_back(parse_normalizer(step));
    return sequence_step(std::move(steps));
  }
  if (type == "Precompiled") {
    const Json& map = value.at("precompiled_charsmap");
    return charsmap_step(map.is_null() ? "" : decode_base64(map.get_ref<const std::string&>()));
  }
  if (type == "Strip") return strip_step(value.value("strip_left", true), value.value("strip_right", true));
  if (type == "Replace") return replace_step(value);
  if (type == "NFC") return form_step(Form::kNfc);
  if (type == "NFD") return form_step(Form::kNfd);
  if (type == "NFKC") return form_step(Form::kNfkc);
  if (type == "NFKD") return form_step(Form::kNfkd);
  if (type == "Lowercase") return lower_cased;
  if (type == "Prepend") {
    return [mark = value.at("prepend").get<std::string>()](std::string_view text) {
      return text.empty() ? std::string() : mark + std::string(text);
    };
  }
  throw std::invalid_argument(str("the normalizer \"", type, "\" is not supported"));
}

Normalizer spiece_fast_normalizer(std::string_view charsmap) {
  std::vector<Normalizer> steps;
  if (!charsmap.empty()) steps.push_back(charsmap_step(charsmap));
  steps.push_back(strip_step(false, true));
  auto replace = std::make_shared<const RegexReplace>(" {2,}", "\u2581");
  steps.emplace_back([replace](std::string_view text) { return (*replace)(text); });
  return sequence_step(std::move(steps));
}

PreTokenizer metaspace(std::string mark, Prefix prefix, bool split) {
  return [mark = std::move(mark), prefix, split](std::string_view text, bool is_start) {
    std::string marked = replace_all(text, " ", mark);
    const bool wants_prefix = prefix == Prefix::kAlways || (prefix == Prefix::kFirst && is_start);
    if (wants_prefix && !marked.starts_with(mark)) marked.insert(0, mark);
    std::vector<std::string> words;
    for (size_t at = 0; at < marked.size();) {
      const size_t from = marked.compare(at, mark.size(), mark) == 0 ? at + mark.size() : at;
      const size_t end = split ? std::min(marked.find(mark, from), marked.size()) : marked.size();
      words.push_back(marked.substr(at, end - at));
      at = end;
    }
    return words;
  };
}

PreTokenizer parse_pre_tokenizer(const Json& value) {
  if (value.is_null()) {
    return [](std::string_view text, bool) { return std::vector<std::string>{std::string(text)}; };
  }
  const auto type = value.at("type").get<std::string>();
  if (type == "Sequence") {
    std::vector<PreTokenizer> steps;
    for (const Json& step : value.at("pretokenizers")) steps.push_back(parse_pre_tokenizer(step));
    return sequence_of(std::move(steps));
  }
  if (type == "Metaspace") {
    auto mark = value.at("replacement").get<std::string>();
    if (mark.empty()) throw std::invalid_argument("a Metaspace step has an empty replacement");
    return metaspace(std::move(mark), parse_prefix(value), value.value("split", true));
  }
  if (type == "WhitespaceSplit") return [](std::string_view text, bool) { return split_white_space(text); };
  throw std::invalid_argument(str("the pre-tokenizer \"", type, "\" is not supported"));
}

SpecialTokens parse_post_processor(const Json& value) {
  SpecialTokens frame;
  if (value.is_null()) return frame;
  const auto type = value.at("type").get<std::string>();
  if (type != "TemplateProcessing") {
    throw std::invalid_argument(str("the post-processor \"", type, "\" is not supported"));
  }
  bool is_before = true;
  for (const Json& item : value.at("single")) {
    if (item.contains("Sequence")) {
      is_before = false;
      continue;
    }
    const auto name = item.at("SpecialToken").at("id").get<std::string>();
    for (const Json& id : value.at("special_tokens").at(name).at("ids")) {
      (is_before ? frame.before : frame.after).push_back(parse_id(id, name));
    }
  }
  return frame;
}

}  // namespace atelier::text
