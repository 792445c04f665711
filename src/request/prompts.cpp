// The four prompt file kinds, and the one function that turns a row's fields into a PromptRow.
#include "request/prompts.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/json_problem.h"
#include "base/text.h"
#include "request/csv.h"
#include "request/index_lines.h"
#include "request/lines.h"
#include "request/paths.h"
#include "request/row_names.h"

namespace atelier::request {
namespace fs = std::filesystem;
namespace {

const std::string kNameColumn = "output_path";

// Why one row cannot be used; ends in a BadRow.
[[noreturn]] void bad(const std::string& reason) {
  throw Error(Kind::kItem, reason);
}

// Of the fields that a row may have.
std::vector<std::string> known_names(const std::string& name_column) {
  std::vector<std::string> names;
  PromptRow().fields([&](const Field& field, const FieldRef&) { names.emplace_back(field.name); });
  names.push_back(kNameColumn);
  if (!name_column.empty()) names.push_back(name_column);
  return names;
}

PromptRow row_of(const Json& object, const std::string& name_column, int64_t default_index) {
  PromptRow row;
  row.request.index = default_index;
  row.fields([&](const Field& field, const FieldRef& slot) {
    const auto at = object.find(field.name);
    if (at == object.end() || at->is_null()) return;
    const bool is_series = at->is_array() && field.effect == Effect::kShape;
    if (is_text(slot) && !at->is_string() && !is_series)
      bad(str(field.name, " must be text, not ", shown(*at)));
    set_from_json(field, slot, *at, "");
    check_limits(field, slot, "");
  });
  const auto given = [&](const std::string& key) {
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
  };
  std::string& prompt = row.request.prompt;
  if (!given("prompt")) bad("it has no prompt" + prompt_meant_in(object));
  prompt = std::string(trim(prompt));
  if (prompt.empty()) bad("its prompt is empty");
  const std::string& column = name_column.empty() ? kNameColumn : name_column;
  if (const Json* name = given(column)) {
    // an identifier column may well hold numbers
    if (!name->is_number() && !name->is_string()) bad(str(column, " must be text, not ", shown(*name)));
    row.custom_name = name->is_number() ? name->dump() : std::string(trim(name->get<std::string>()));
  }
  return row;
}

// Collects rows and bad rows of one file.
class Collector {
 public:
  Collector(const fs::path& file, const PromptOptions& options)
      : file_(file.string()),
        column_(options.output_name_column),
        needs_name_(options.needs_name),
        limit_(options.limit),
        spelled_out_(options.spelled_out),
        names_(known_names(column_)) {}

  bool is_full() const { return limit_ && std::ssize(prompts_.rows) >= *limit_; }

  // Takes a row's fields, read or not: make() may call bad().
  template <class Make>
  void add(int64_t line, int64_t default_index, const Make& make) {
    const std::string where = str(file_, ":", line);
    try {
      const Json object = make();
      if (object.is_structured() && object.contains(column_)) has_column_ = true;
      PromptRow row = row_of(object, column_, default_index);
      if (needs_name_ && row.custom_name.empty())
        bad(str("it has no ", column_.empty() ? kNameColumn : column_));
      if (spelled_out_) rewrite_paths(row.request, spelled_out_);
      place_pictures(row.request, fs::path(file_).parent_path());
      row.request.where = where;
      names_.tell_of_unknown(object, where, prompts_.warnings);
      // rows with a name of their own are not named by index
      if (row.custom_name.empty()) {
        const int64_t first = lines_.take(row.request.index, line);
        if (first > 0) bad(str("index ", row.request.index, " is already used at ", file_, ":", first));
      }
      prompts_.rows.push_back(row);
    } catch (const Error& e) {
      prompts_.bad.push_back({where, e.what(), std::ssize(prompts_.rows)});
    }
  }

  Prompts finish() {
    if (prompts_.rows.empty() && prompts_.bad.empty()) {
      throw Error(Kind::kUsage, str(file_, " holds no prompt: write one per row"));
    }
    if (prompts_.rows.empty()) {
      const BadRow& first = prompts_.bad.front();
      throw Error(Kind::kUsage, str(file_, " has no valid row; the first of ", prompts_.bad.size(),
                                    " bad ones, at ", first.where, ": ", first.reason));
    }
    if (!column_.empty() && !has_column_) {
      throw Error(Kind::kUsage,
                  str("no row of ", file_, " has the field \"", column_, "\" that output_name_column names"));
    }
    return std::move(prompts_);
  }

 private:
  std::string file_, column_;
  bool needs_name_;
  std::optional<int64_t> limit_;
  bool has_column_ = false;
  std::function<std::string(const std::string&)> spelled_out_;
  RowNames names_;
  Prompts prompts_;
  IndexLines lines_;
};

Json parse_row(std::string_view text) {
  if (!is_utf8(text)) bad("it is not UTF-8");
  if (json_depth(text) > kMaxDepth) bad(str("it nests deeper than ", kMaxDepth, " levels"));
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) bad("it is not valid JSON");
  if (value.is_string()) {
    Json object = Json::object();
    object["prompt"] = std::move(value);
    return object;
  }
  if (!value.is_object()) bad("it must be an object with a prompt, or a text");
  return value;
}

void read_jsonl(std::streambuf& text, Collector& out) {
  Lines lines(text);
  for (std::string line; !out.is_full() && lines.next(line);) {
    const std::string_view row = trim(line);
    if (!row.empty()) out.add(lines.number(), lines.number() - 1, [&] { return parse_row(row); });
  }
}

void read_txt(std::streambuf& text, Collector& out) {
  Lines lines(text);
  for (std::string line; !out.is_full() && lines.next(line);) {
    const std::string_view prompt = trim(line);
    if (prompt.empty()) continue;
    out.add(lines.number(), lines.number() - 1, [&] {
      if (!is_utf8(prompt)) bad("it is not UTF-8");
      return Json{{"prompt", std::string(prompt)}};
    });
  }
}

// Calls take(line where it begins, text) for the elements of a valid JSON array, until that says no.
template <class Take>
void for_elements(std::string_view json, const Take& take) {
  int64_t line = 1, begin_line = 1;
  int depth = 0;
  bool in_string = false, in_element = false;
  size_t begin = 0;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (c == '\n') ++line;
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
      continue;
    }
    if (depth == 1 && in_element && (c == ',' || c == ']')) {
      if (!take(begin_line, trim(json.substr(begin, i - begin)))) return;
      in_element = false;
    }
    const bool is_inside = depth >= 1 && c != ',' && c != ']' && trim(json.substr(i, 1)).size() == 1;
    if (is_inside && !in_element) {
      in_element = true;
      begin = i;
      begin_line = line;
    }
    in_string = c == '"';
    depth += c == '[' || c == '{';
    depth -= c == ']' || c == '}';
  }
}

// Builds nothing, and says what is wrong.
void check_json(std::string_view text, const fs::path& file) {
  const auto discard = [](int, Json::parse_event_t, Json&) { return false; };
  try {
    [[maybe_unused]] const Json nothing = Json::parse(text, discard);
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(file.string(), " is not valid JSON: ", json_problem(e)));
  }
}

void read_json_array(std::string_view text, const fs::path& file, Collector& out) {
  if (json_depth(text) > kMaxDepth) {
    throw Error(Kind::kUsage, str(file.string(), " nests deeper than ", kMaxDepth, " levels"));
  }
  check_json(text, file);
  if (!trim(text).starts_with('[')) {
    throw Error(Kind::kUsage,
                str(file.string(), " must hold an array of prompts; for one object per line name it .jsonl"));
  }
  int64_t index = 0;
  for_elements(text, [&](int64_t line, std::string_view element) {
    out.add(line, index++, [&] { return parse_row(element); });
    return !out.is_full();
  });
}

std::vector<std::string> header_of(const CsvRecord& first, const fs::path& file) {
  std::vector<std::string> header;
  for (const std::string& cell : first.cells) header.emplace_back(trim(cell));
  if (std::find(header.begin(), header.end(), "prompt") == header.end()) {
    std::string found;
    for (const std::string& cell : header) found += (found.empty() ? "" : ", ") + cell.substr(0, 40);
    throw Error(Kind::kUsage,
                str(file.string(), " needs a header line with the column \"prompt\", separated by commas",
                    meant_as_prompt(header), "; its first line is: ",
                    found.empty()    ? "empty"
                    : is_utf8(found) ? found.substr(0, 200)
                                     : "not UTF-8"));
  }
  for (auto at = header.begin(); at != header.end(); ++at) {
    if (!at->empty() && std::find(header.begin(), at, *at) != at) {
      throw Error(Kind::kUsage, str(file.string(), " has the column \"", *at, "\" twice"));
    }
  }
  return header;
}

Json object_of(const CsvRecord& record, const std::vector<std::string>& header) {
  if (!record.error.empty()) bad(record.error);
  if (record.cells.size() > header.size()) {
    bad(str("it has ", record.cells.size(), " cells, the header ", header.size(),
            ": put cells with commas into quotes"));
  }
  Json object = Json::object();
  for (size_t i = 0; i < record.cells.size(); ++i) {
    if (!is_utf8(record.cells[i])) bad("it is not UTF-8");
    if (!trim(record.cells[i]).empty()) object[header[i]] = record.cells[i];
  }
  return object;
}

void read_csv_rows(std::streambuf& text, const fs::path& file, Collector& out) {
  CsvReader reader(text);
  CsvRecord record;
  reader.next(record);
  const std::vector<std::string> header = header_of(record, file);
  for (int64_t index = 0; !out.is_full() && reader.next(record); ++index)
    out.add(record.line, index, [&] { return object_of(record, header); });
}

constexpr std::string_view kKinds[] = {".jsonl", ".json", ".txt", ".csv"};

// One of the four suffixes, in lower case; empty for another one.
std::string suffix_of(const fs::path& file) {
  const std::string end = lower(file.extension().string());
  return std::find(std::begin(kKinds), std::end(kKinds), end) == std::end(kKinds) ? "" : end;
}

// What a text without a name looks like.
std::string kind_of_text(std::string_view text) {
  const std::string_view begin = trim(text.substr(0, 4096));
  if (begin.starts_with('[')) return ".json";
  if (begin.starts_with('{')) return ".jsonl";
  const auto first = read_csv(begin.substr(0, begin.find_first_of("\r\n")));
  const bool has_column =
      !first.empty() && std::any_of(first[0].cells.begin(), first[0].cells.end(),
                                    [](const auto& cell) { return trim(cell) == "prompt"; });
  return has_column ? ".csv" : ".txt";
}

// For texts that cannot be taken row by row. Throws Error(kUsage) for more than one would write,
// endless ones too.
std::string all_of(std::streambuf& text, const fs::path& file) {
  constexpr size_t kMost = size_t{256} << 20, kChunk = size_t{1} << 16;
  std::string bytes;
  for (size_t n = kChunk; n == kChunk;) {
    const size_t had = bytes.size();
    bytes.resize(had + kChunk);
    n = static_cast<size_t>(text.sgetn(bytes.data() + had, kChunk));
    bytes.resize(had + n);
    if (bytes.size() > kMost) {
      throw Error(Kind::kUsage, str(file.string(), " gives more than ", kMost >> 20,
                                    " MiB; long lists are read row by row from a .jsonl, .txt or .csv file"));
    }
  }
  return bytes;
}

Prompts read_stream(std::streambuf& text, const fs::path& file, const std::string& kind,
                    const PromptOptions& options) {
  if (!skip_mark(text)) throw Error(Kind::kUsage, file.string() + " is UTF-16: save it as UTF-8");
  Collector out(file, options);
  if (kind == ".jsonl") read_jsonl(text, out);
  if (kind == ".txt") read_txt(text, out);
  if (kind == ".json") read_json_array(all_of(text, file), file, out);
  if (kind == ".csv") read_csv_rows(text, file, out);
  return out.finish();
}

[[noreturn]] void fail_kind(const fs::path& file) {
  throw Error(Kind::kUsage, str(file.string(), " is not a prompt file: .jsonl, .json, .txt and .csv are"));
}

}  // namespace

void PromptRow::fields(const Visit& visit) {
  request.fields([&](const Field& field, const FieldRef& slot) {
    if (!field.help.empty() || field.name == "index") visit(field, slot);  // others are the program's
  });
  visit({.name = "num_images_per_prompt",
         .help = "pictures per prompt, with seeds seed, seed+1, ...",
         .least = 1,
         .most = 10000},
        &images);
}

Prompts parse_prompts(std::string_view bytes, const fs::path& file, const PromptOptions& options) {
  const std::string kind = suffix_of(file);
  if (kind.empty()) fail_kind(file);
  std::stringbuf text{std::string(bytes), std::ios::in};
  return read_stream(text, file, kind, options);
}

Prompts read_prompts(const fs::path& file, const PromptOptions& options) {
  const bool is_standard_input = file == "-";
  const fs::path opened = is_standard_input ? "/dev/stdin" : file;
  std::error_code error;
  const auto status = fs::status(opened, error);
  const bool has_name = fs::is_regular_file(status) || !fs::exists(status) || fs::is_directory(status);
  std::string kind = suffix_of(file);
  // before a file of another kind, perhaps a huge one, is read
  if (kind.empty() && has_name && !is_standard_input && file != "/dev/stdin") fail_kind(file);
  // A pipe may well be named, and be given by the shell; a device has no end.
  if (fs::is_character_file(status) && !kind.empty() && !is_standard_input) {
    throw Error(Kind::kUsage, str(file.string(), " is a device, not a file of prompts"));
  }
  std::filebuf text;
  errno = 0;
  if (fs::is_directory(status) || !text.open(opened, std::ios::in | std::ios::binary)) {
    throw Error(Kind::kUsage, str("cannot read ", file.string(), ": ",
                                  fs::is_directory(status) ? "it is a folder" : std::strerror(errno)));
  }
  if (!kind.empty()) return read_stream(text, file, kind, options);
  const std::string bytes = all_of(text, file);
  std::stringbuf whole(bytes, std::ios::in);
  return read_stream(whole, is_standard_input ? "standard input" : file, kind_of_text(bytes), options);
}

Prompts one_prompt(const std::string& prompt) {
  PromptRow row;
  row.request.prompt = prompt;
  Prompts prompts;
  prompts.rows.push_back(row);
  return prompts;
}

}  // namespace atelier::request
