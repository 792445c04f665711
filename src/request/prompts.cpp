// The four prompt file kinds, and the one function that turns a row's fields into a Row.
#include "request/prompts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/text.h"
#include "request/csv.h"

namespace atelier::request {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxPromptBytes = 1 << 20;
constexpr int kMaxSide = 65536, kMaxSteps = 10000, kMaxImages = 10000;

// Reason why one row cannot be used; ends in a BadRow, never leaves this file.
struct RowError {
  std::string reason;
};

[[noreturn]] void bad(const std::string& reason) {
  throw RowError{reason};
}

std::string shown(const Json& value) {
  std::string text = value.is_structured() ? (value.is_array() ? "an array" : "an object")
                                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

// Reads typed fields of one row; unset ones give nothing.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  const Json* find(const std::string& key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }
  std::optional<std::string> text(const std::string& key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) bad(str(key, " must be text, not ", shown(*value)));
    const auto& text = value->get_ref<const std::string&>();
    if (text.size() > kMaxPromptBytes) bad(str(key, " is longer than ", kMaxPromptBytes, " bytes"));
    if (text.find('\0') != std::string::npos) bad(key + " holds a NUL character");
    return text;
  }
  std::optional<int64_t> integer(const std::string& key, int64_t low, int64_t high) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto number = to_integer(number_text(*value));
    if (!number || *number < low || *number > high) {
      bad(high == std::numeric_limits<int64_t>::max()
              ? str(key, " must be a whole number of at least ", low, ", not ", shown(*value))
              : str(key, " must be a whole number from ", low, " to ", high, ", not ", shown(*value)));
    }
    return number;
  }
  std::optional<int> small(const std::string& key, int low, int high) const {
    const auto number = integer(key, low, high);
    return number ? std::optional<int>(static_cast<int>(*number)) : std::nullopt;
  }
  std::optional<double> number(const std::string& key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto number = to_number(number_text(*value));
    if (!number || *number < 0) bad(str(key, " must be a number of at least 0, not ", shown(*value)));
    return number;
  }
  std::optional<uint64_t> seed() const {
    const Json* value = find("seed");
    if (value == nullptr) return std::nullopt;
    const auto number = to_unsigned(number_text(*value));
    if (!number) bad(str("seed must be a whole number from 0 to 18446744073709551615, not ", shown(*value)));
    return number;
  }

 private:
  static std::string number_text(const Json& value) {
    if (value.is_string()) return std::string(trim(value.get_ref<const std::string&>()));
    return value.is_number() ? value.dump() : std::string();
  }
  const Json& object_;
};

PromptRow row_of(const Json& object, const std::string& name_column, int64_t default_index) {
  const Fields fields(object);
  PromptRow row;
  Item& item = row.item;
  const auto prompt = fields.text("prompt");
  if (!prompt) bad("it has no prompt");
  item.prompt = std::string(trim(*prompt));
  if (item.prompt.empty()) bad("its prompt is empty");
  if (const auto negative = fields.text("negative_prompt")) {
    item.negative_prompt = *negative;
    item.has_negative = true;
  }
  item.height = fields.small("height", 1, kMaxSide);
  item.width = fields.small("width", 1, kMaxSide);
  item.steps = fields.small("num_inference_steps", 1, kMaxSteps);
  item.guidance = fields.number("guidance_scale");
  item.seed = fields.seed();
  row.images = fields.small("num_images_per_prompt", 1, kMaxImages);
  item.index = fields.integer("index", 0, std::numeric_limits<int64_t>::max()).value_or(default_index);
  const std::string& column = name_column.empty() ? "output_path" : name_column;
  if (const Json* name = fields.find(column)) {
    // an identifier column may well hold numbers
    row.custom_name = name->is_number() ? name->dump() : std::string(trim(fields.text(column).value_or("")));
  }
  return row;
}

// Collects rows and bad rows of one file.
class Collector {
 public:
  Collector(const fs::path& file, const std::string& name_column)
      : file_(file.string()), column_(name_column) {}

  // Takes a row's fields, read or not: make() may call bad().
  template <class Make>
  void add(int64_t line, int64_t default_index, const Make& make) {
    const std::string where = str(file_, ":", line);
    try {
      const Json object = make();
      if (object.is_structured() && object.contains(column_)) has_column_ = true;
      PromptRow row = row_of(object, column_, default_index);
      row.item.where = where;
      // rows with a name of their own are not named by index
      if (row.custom_name.empty()) {
        const auto [first, is_new] = seen_.emplace(row.item.index, where);
        if (!is_new) bad(str("index ", row.item.index, " is already used at ", first->second));
      }
      prompts_.rows.push_back(std::move(row));
    } catch (const RowError& e) {
      prompts_.bad.push_back({where, e.reason});
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
      throw Error(Kind::kUsage, str("no row of ", file_, " has the field \"", column_,
                                    "\" that --output_name_column names"));
    }
    return std::move(prompts_);
  }

 private:
  std::string file_, column_;
  bool has_column_ = false;
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
  prompts.rows.emplace_back().item.prompt = prompt;
  return prompts;
}

}  // namespace atelier::request
