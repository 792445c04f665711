// Prompt files: .jsonl, .json, .txt and .csv become rows; a bad row is reported and the others go on.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "request/request.h"
#include "request/spool.h"

namespace atelier::request {

struct PromptRow {
  Request request;  // sub, seed and name are not final
  std::optional<int> images;
  std::string custom_name;  // as written; empty: named by index
  // What a row may say: everything that decides what its pictures look like, its index, how many pictures.
  void fields(const Visit& visit);
};

void pack(const PromptRow& row, std::string& out);
void unpack(std::string_view packed, PromptRow& row);
using RowList = Spool<PromptRow>;

struct BadRow {
  std::string where, reason;
  int64_t before = 0;  // good rows above it: a share of those says whether it is in
};

struct Prompts {
  RowList rows;
  std::vector<BadRow> bad;
  std::vector<std::string> warnings = {};  // of names that nobody knows, one sentence each
};

struct PromptOptions {
  std::string output_name_column = {};  // the field to name files by instead of output_path; empty: none
  std::optional<int64_t> limit = {};    // good rows; nothing behind the last of them is looked at
  bool needs_name = false;              // rows without a name are bad
  // What a path in a row means where it does not stand for itself ("~/a.png"); empty: nothing else.
  std::function<std::string(const std::string&)> spelled_out = {};
};

// A row holds the fields of PromptRow, of which it needs a prompt, and output_path. Numbers may be written as
// text; null and, in CSV, an empty cell mean unset. Without index: .jsonl and .txt the line, .json the place
// in the array, .csv the data row, from 0. The file is read row by row, an array of .json and what is no file
// at once. "-" is standard input; the kind of what has no name, such as a pipe, follows from its text. Throws
// Error(kUsage) if the file cannot be read, is of another kind, or has no valid row at all.
Prompts read_prompts(const std::filesystem::path& file, const PromptOptions& options = {});

// The same for bytes that stand for a file of this name.
Prompts parse_prompts(std::string_view bytes, const std::filesystem::path& file,
                      const PromptOptions& options = {});

// The prompt of the command line: one row with index 0.
Prompts one_prompt(const std::string& prompt);

}  // namespace atelier::request
