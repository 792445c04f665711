// What every tokenizer folder says beside its vocabulary: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/json_problem.h"

namespace atelier::text {

// A token that is found in the text as a whole, before the model splits it.
struct AddedToken {
  std::string content;
  int64_t id = -1;           // -1: not said, the vocabulary knows or the next free id is taken
  bool lstrip = false;       // also takes the white space on its left
  bool rstrip = false;       // also takes the white space on its right
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // searched in the normalised text, by fast tokenizers
  bool special = true;
};

struct TokenizerConfig {
  std::filesystem::path folder;
  std::string tokenizer_class;  // empty where unset
  Json config = Json::object();
  // With ids, in the order of ids; from added_tokens_decoder, or from added_tokens.json where that is
  // missing.
  std::vector<AddedToken> added;
  bool has_added_tokens_decoder = false;
  std::map<std::string, AddedToken, std::less<>> named;  // "bos_token", "eos_token", "pad_token", ...
  std::vector<AddedToken> additional;                    // additional_special_tokens
  int64_t model_max_length = 0;

  // The content of a named special token, or the class's default.
  std::string special(std::string_view name, std::string_view otherwise) const;
};

// Throws Error(kCheckpoint) naming the file that is malformed. Missing files leave defaults.
TokenizerConfig read_settings(const std::filesystem::path& folder);

// A JSON file of the folder. Throws Error(kCheckpoint) when it is missing or not JSON.
Json read_settings_file(const std::filesystem::path& file);
// A file's bytes. Throws Error(kCheckpoint) when it is missing.
std::string read_vocabulary_file(const std::filesystem::path& file);
// A whole number; any other value is refused as what is said of it ("the token \"a\" has the id"): a
// conversion would make some other number of 1e308, or of a part of one.
int64_t whole_number(const Json& value, int64_t least, int64_t most, std::string_view said);
// An id of a vocabulary.
int64_t parse_id(const Json& value, std::string_view token);
// One entry of added_tokens_decoder or of tokenizer.json's added_tokens.
AddedToken parse_added_token(const Json& value);

// The added tokens as transformers completes them: `settings.added`, then the named special tokens, then the
// additional ones, each content once.
std::vector<AddedToken> complete_added_tokens(const TokenizerConfig& settings);

[[noreturn]] void throw_malformed(const std::filesystem::path& file, std::string_view what);

// Runs `read`, turning a value that it refuses, one of the wrong type or a missing key into
// Error(kCheckpoint) naming the file.
template <class Read>
auto parsing(const std::filesystem::path& file, Read&& read) {
  try {
    return read();
  } catch (const Json::exception& e) {
    throw_malformed(file, json_problem(e));
  } catch (const std::invalid_argument& e) {
    throw_malformed(file, e.what());
  }
}

}  // namespace atelier::text
