// The four prompt file kinds, and the one function that turns a row's fields into a PromptRow.
#include "request/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/suggest.h"
#include "base/text.h"
#include "request/csv.h"

namespace atelier::request {
namespace fs = std::filesystem;
namespace {

const std::string kNameColumn = "output_path";

// Why one row cannot be used; ends in a BadRow.
[[noreturn]] void bad(const std::string& reason) {
  throw Error(Kind::kItem, reason);
}

PromptRow row_of(const Json& object, const std::string& name_column, int64_t default_index) {
  PromptRow row;
  row.request.index = default_index;
  row.fields([&](const Field& field, const FieldRef& slot) {
    const auto at = object.find(field.name);
    if (at == object.end() || at->is_null()) return;
    if (is_text(slot) && !at->is_string()) bad(str(field.name, " must be text, not ", shown(*at)));
    set_from_json(field, slot, *at, "");
    check_limits(field, slot, "");
  });
  const auto given = [&](const std::string& key) {
    const auto at = object.find(key);
    return at == object.end() || at->is_null() ? nullptr : &*at;
  };
  std::string& prompt = row.request.prompt;
  if (!given("prompt")) bad("it has no prompt");
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
  Collector(const fs::path& file, const std::string& name_column)
      : file_(file.string()), column_(name_column) {
    PromptRow().fields([this](const Field& field, const FieldRef&) { known_.emplace_back(field.name); });
    known_.push_back(kNameColumn);
    if (!column_.empty()) known_.push_back(column_);
  }

  // Takes a row's fields, read or not: make() may call bad().
  template <class Make>
  void add(int64_t line, int64_t default_index, const Make& make) {
    const std::string where = str(file_, ":", line);
    try {
      const Json object = make();
      if (object.is_structured() && object.contains(column_)) has_column_ = true;
      PromptRow row = row_of(object, column_, default_index);
      row.request.where = where;
      warn_of_unknown(object, where);
      // rows with a name of their own are not named by index
      if (row.custom_name.empty()) {
        const auto [first, is_new] = seen_.emplace(row.request.index, where);
        if (!is_new) bad(str("index ", row.request.index, " is already used at ", first->second));
      }
      prompts_.rows.push_back(std::move(row));
    } catch (const Error& e) {
      prompts_.bad.push_back({where, e.what()});
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
  // Once for every name, at the first row that has it.
  void warn_of_unknown(const Json& object, const std::string& where) {
    for (const auto& [name, value] : object.items()) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      prompts_.warnings.push_back(
          str(where, ": the field \"", name.substr(0, 60), "\" has no effect", did_you_mean(name, known_)));
      known_.push_back(name);
    }
  }

  std::string file_, column_;
  bool has_column_ = false;
  std::vector<std::string> known_;  // names of fields, also unknown ones that have been told of
  Prompts prompts_;
  std::unordered_map<int64_t, std::string> seen_;
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

void read_jsonl(std::string_view text, Collector& out) {
  int64_t number = 0;
  for (const std::string_view line : split_lines(text)) {
    const int64_t index = number++;
    if (const std::string_view row = trim(line); !row.empty()) {
      out.add(number, index, [&] { return parse_row(row); });
    }
  }
}

void read_txt(std::string_view text, Collector& out) {
  int64_t number = 0;
  for (const std::string_view line : split_lines(text)) {
    const int64_t index = number++;
    const std::string_view prompt = trim(line);
    if (prompt.empty()) continue;
    out.add(number, index, [&] {
      if (!is_utf8(prompt)) bad("it is not UTF-8");
      return Json{{"prompt", std::string(prompt)}};
    });
  }
}

struct Element {
  int64_t line;
  std::string_view text;
};

// The elements of a valid JSON array with the line where each begins.
std::vector<Element> elements_of(std::string_view json) {
  std::vector<Element> elements;
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
      elements.push_back({begin_line, trim(json.substr(begin, i - begin))});
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
  return elements;
}

void read_json_array(std::string_view text, const fs::path& file, Collector& out) {
  if (json_depth(text) > kMaxDepth) {
    throw Error(Kind::kUsage, str(file.string(), " nests deeper than ", kMaxDepth, " levels"));
  }
  try {
    if (!Json::parse(text).is_array()) {
      throw Error(
          Kind::kUsage,
          str(file.string(), " must hold an array of prompts; for one object per line name it .jsonl"));
    }
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(file.string(), " is not valid JSON: ", e.what()));
  }
  int64_t index = 0;
  for (const Element& element : elements_of(text)) {
    out.add(element.line, index++, [&] { return parse_row(element.text); });
  }
}

std::vector<std::string> header_of(const std::vector<CsvRecord>& records, const fs::path& file) {
  std::vector<std::string> header;
  if (!records.empty()) {
    for (const std::string& cell : records.front().cells) header.emplace_back(trim(cell));
  }
  if (std::find(header.begin(), header.end(), "prompt") == header.end()) {
    std::string found;
    for (const std::string& cell : header) found += (found.empty() ? "" : ", ") + cell.substr(0, 40);
    throw Error(
        Kind::kUsage,
        str(file.string(),
            " needs a header line with the column \"prompt\", separated by commas; its first line is: ",
            is_utf8(found) ? found.substr(0, 200) : "not UTF-8"));
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

void read_csv_rows(std::string_view text, const fs::path& file, Collector& out) {
  const std::vector<CsvRecord> records = read_csv(text);
  const std::vector<std::string> header = header_of(records, file);
  for (size_t i = 1; i < records.size(); ++i) {
    out.add(records[i].line, static_cast<int64_t>(i) - 1, [&] { return object_of(records[i], header); });
  }
}

// Without the byte order mark that some editors put in front.
std::string_view without_mark(std::string_view text, const fs::path& file) {
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    throw Error(Kind::kUsage, file.string() + " is UTF-16: save it as UTF-8");
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

// One of the four suffixes, in lower case.
std::string suffix_of(const fs::path& file) {
  std::string end = file.extension().string();
  std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return std::tolower(c); });
  if (end != ".jsonl" && end != ".json" && end != ".txt" && end != ".csv") {
    throw Error(Kind::kUsage, str(file.string(), " is not a prompt file: .jsonl, .json, .txt and .csv are"));
  }
  return end;
}

}  // namespace

void PromptRow::fields(const Visit& visit) {
  request.fields([&](const Field& field, const FieldRef& slot) {
    if (field.effect != Effect::kPlace || field.name == "index") visit(field, slot);
  });
  visit({.name = "num_images_per_prompt",
         .help = "pictures per prompt, with seeds seed, seed+1, ...",
         .least = 1,
         .most = 10000},
        &images);
}

Prompts parse_prompts(std::string_view bytes, const fs::path& file, const std::string& output_name_column) {
  const std::string end = suffix_of(file);
  const std::string_view text = without_mark(bytes, file);
  Collector out(file, output_name_column);
  if (end == ".jsonl") read_jsonl(text, out);
  if (end == ".txt") read_txt(text, out);
  if (end == ".json") read_json_array(text, file, out);
  if (end == ".csv") read_csv_rows(text, file, out);
  return out.finish();
}

Prompts read_prompts(const fs::path& file, const std::string& output_name_column) {
  suffix_of(file);  // before a file of another kind, perhaps a huge one, is read
  return parse_prompts(read_file(file), file, output_name_column);
}

Prompts one_prompt(const std::string& prompt) {
  Prompts prompts;
  prompts.rows.emplace_back().request.prompt = prompt;
  return prompts;
}

}  // namespace atelier::request
