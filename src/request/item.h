// One picture to draw, and the rows of a prompt file from which pictures come. Whatever a row does not say
// stays unset and is filled in from flags, the model or a random number later.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace atelier::request {

struct Item {
  int64_t index = 0;  // of its row
  int sub = 0;        // which of the row's pictures
  std::string prompt, negative_prompt;
  bool has_negative = false;
  std::optional<int> height, width, steps;
  std::optional<double> guidance;
  std::optional<uint64_t> seed;  // of this picture: the row's plus sub
  std::string name;              // of the file, relative to the output folder
  std::string where;             // "prompts.jsonl:12"; empty for a prompt of the command line
};

struct PromptRow {
  Item item;  // sub, seed and name are not final
  std::optional<int> images;
  std::string custom_name;  // as written; empty: named by index
};

struct BadRow {
  std::string where, reason;
};

struct Prompts {
  std::vector<PromptRow> rows;
  std::vector<BadRow> bad;
};

}  // namespace atelier::request
