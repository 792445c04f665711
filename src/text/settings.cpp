// Reading of the settings beside a vocabulary, with the precedence that transformers 4 gives the files.
#include "text/settings.h"

#include <algorithm>
#include <limits>

#include "base/files.h"
#include "base/text.h"

namespace atelier::text {
namespace fs = std::filesystem;

namespace {

// The order in which transformers adds special tokens that the vocabulary lacks.
constexpr std::string_view kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

// A special token is written as its text or as an object with flags.
AddedToken parse_special(const Json& value) {
  if (value.is_string()) return {.content = value.get<std::string>()};
  AddedToken token = parse_added_token(value);
  token.special = true;
  return token;
}

void read_named(const Json& from, TokenizerConfig& to) {
  for (const std::string_view name : kNames) {
    const auto found = from.find(name);
    if (found != from.end() && !found->is_null())
      to.named.insert_or_assign(std::string(name), parse_special(*found));
  }
  const auto additional = from.find("additional_special_tokens");
  if (additional == from.end() || additional->is_null()) return;
  for (const Json& value : *additional) {
    AddedToken token = parse_special(value);
    const bool known =
        std::ranges::any_of(to.additional, [&](const AddedToken& t) { return t.content == token.content; });
    if (!known) to.additional.push_back(std::move(token));
  }
}

int64_t parse_max_length(const Json& config) {
  const auto found = config.find("model_max_length");
  constexpr int64_t kUnset = std::numeric_limits<int64_t>::max();
  if (found == config.end() || found->is_null()) return kUnset;
  const auto value = found->get<double>();  // "unset" is written as 10^30
  if (!(value > 0) || value >= 9e18) return kUnset;
  return static_cast<int64_t>(value);
}

int64_t parse_key(const std::string& text, const fs::path& file) {
  constexpr size_t kMostDigits = 9;
  if (text.empty() || text.size() > kMostDigits ||
      text.find_first_not_of("0123456789") != std::string::npos) {
    throw_malformed(file, str("added_tokens_decoder has the key \"", text, "\", not an id"));
  }
  return std::stoll(text);
}

void read_config(const fs::path& file, TokenizerConfig& to) {
  to.config = read_settings_file(file);
  parsing(file, [&] {
    to.tokenizer_class = to.config.contains("tokenizer_class") && to.config["tokenizer_class"].is_string()
                             ? to.config["tokenizer_class"].get<std::string>()
                             : "";
    to.model_max_length = parse_max_length(to.config);
    read_named(to.config, to);
    const auto decoder = to.config.find("added_tokens_decoder");
    if (decoder == to.config.end()) return;
    to.has_added_tokens_decoder = true;
    for (const auto& [id, value] : decoder->items()) {
      AddedToken token = parse_added_token(value);
      token.id = parse_key(id, file);
      to.added.push_back(std::move(token));
    }
    std::ranges::sort(to.added, {}, &AddedToken::id);
  });
}

void read_added_tokens(const fs::path& file, TokenizerConfig& to) {
  const Json contents = read_settings_file(file);
  parsing(file, [&] {
    for (const auto& [content, id] : contents.items()) {
      AddedToken token{.content = content, .id = parse_id(id, content)};
      const auto is_it = [&](const AddedToken& t) { return t.content == token.content; };
      token.special = std::ranges::any_of(to.additional, is_it) ||
                      std::ranges::any_of(to.named, [&](const auto& entry) { return is_it(entry.second); });
      token.normalized = !token.special;
      to.added.push_back(std::move(token));
    }
    std::ranges::sort(to.added, {}, &AddedToken::id);
  });
}

}  // namespace

void throw_malformed(const fs::path& file, std::string_view what) {
  throw Error(Kind::kCheckpoint, str(file.string(), " is malformed: ", what, "; download the file again"));
}

std::string read_vocabulary_file(const fs::path& file) {
  std::error_code none;
  const auto status = fs::status(file, none);
  if (!fs::is_regular_file(status)) {
    throw Error(Kind::kCheckpoint,
                str("the tokenizer file ", file.string(),
                    fs::exists(status) ? " is no plain file" : " is missing", "; download the folder again"));
  }
  return read_file(file);
}

Json read_settings_file(const fs::path& file) {
  const std::string bytes = read_vocabulary_file(file);
  if (json_depth(bytes) > kMaxDepth)
    throw_malformed(file, str("it nests deeper than ", kMaxDepth, " levels"));
  Json value = parsing(file, [&] { return Json::parse(bytes); });
  if (!value.is_object()) throw_malformed(file, "an object was expected");
  return value;
}

int64_t whole_number(const Json& value, int64_t least, int64_t most, std::string_view said) {
  if (!value.is_number_integer() || value < least || value > most) {
    constexpr size_t kMostShown = 60;
    throw std::invalid_argument(str(said, " ", value.dump().substr(0, kMostShown),
                                    ", which is no whole number from ", least, " to ", most));
  }
  return value.get<int64_t>();
}

int64_t parse_id(const Json& value, std::string_view token) {
  return whole_number(value, 0, std::numeric_limits<int32_t>::max(),
                      str("the token \"", token, "\" has the id"));
}

AddedToken parse_added_token(const Json& value) {
  AddedToken token{.content = value.at("content").get<std::string>(),
                   .lstrip = value.value("lstrip", false),
                   .rstrip = value.value("rstrip", false),
                   .single_word = value.value("single_word", false)};
  token.special = value.value("special", false);
  token.normalized = value.value("normalized", !token.special);
  if (const auto id = value.find("id"); id != value.end()) token.id = parse_id(*id, token.content);
  return token;
}

TokenizerConfig read_settings(const fs::path& folder) {
  TokenizerConfig settings{.folder = folder, .model_max_length = std::numeric_limits<int64_t>::max()};
  const fs::path config = folder / "tokenizer_config.json";
  const fs::path map = folder / "special_tokens_map.json";
  const fs::path added = folder / "added_tokens.json";
  if (fs::exists(config)) read_config(config, settings);
  if (!settings.has_added_tokens_decoder) {
    if (fs::exists(map)) {
      const Json contents = read_settings_file(map);
      parsing(map, [&] { read_named(contents, settings); });
    }
    if (fs::exists(added)) read_added_tokens(added, settings);
  }
  return settings;
}

std::string TokenizerConfig::special(std::string_view name, std::string_view otherwise) const {
  const auto found = named.find(name);
  return found == named.end() ? std::string(otherwise) : found->second.content;
}

std::vector<AddedToken> complete_added_tokens(const TokenizerConfig& settings) {
  std::vector<AddedToken> all = settings.added;
  const auto add = [&](const AddedToken& token) {
    const bool known =
        std::ranges::any_of(all, [&](const AddedToken& t) { return t.content == token.content; });
    if (!known && !token.content.empty()) all.push_back(token);
  };
  for (const std::string_view name : kNames) {
    if (const auto found = settings.named.find(name); found != settings.named.end()) add(found->second);
  }
  for (const AddedToken& token : settings.additional) add(token);
  return all;
}

}  // namespace atelier::text
