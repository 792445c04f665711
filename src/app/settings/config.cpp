// YAML by yaml-cpp, JSON by nlohmann; both become one type.
#include "app/settings/config.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json_problem.h"
#include "base/text.h"

namespace atelier::app {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxValues = 100'000;  // aliases of aliases could make billions
constexpr size_t kMaxBytes = 16 << 20;

std::optional<int64_t> prefixed_integer(const std::string& text) {
  if (text.size() < 3 || text[0] != '0' || text.find_first_of("+-") != std::string::npos) return std::nullopt;
  const int base = text[1] == 'x' ? 16 : text[1] == 'o' ? 8 : 0;
  if (base == 0) return std::nullopt;
  size_t used = 0;
  try {
    const int64_t value = std::stoll(text.substr(2), &used, base);
    return used == text.size() - 2 ? std::optional(value) : std::nullopt;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

// The type of an unquoted scalar. [YAML 1.2 core schema; yes, no, on, off of YAML 1.1]
Json typed(const std::string& text) {
  const std::string word = lower(text);
  if (word.empty() || word == "null" || word == "~") return nullptr;
  if (word == "true" || word == "yes" || word == "on") return true;
  if (word == "false" || word == "no" || word == "off") return false;
  if (text.find_first_of("0123456789") == std::string::npos) return text;
  const std::string digits = text[0] == '+' ? text.substr(1) : text;
  const bool is_integer =
      digits.find_first_not_of("0123456789", digits[0] == '-' ? 1 : 0) == std::string::npos;
  if (is_integer && digits.size() < 20) {
    if (const auto value = to_integer(digits)) return *value;
  }
  if (is_integer) {
    if (const auto value = to_unsigned(digits)) return *value;
    return text;  // too long for a number, so perhaps an identifier
  }
  if (const auto value = prefixed_integer(text)) return *value;
  if (const auto value = to_number(digits)) return *value;
  return text;
}

class Yaml {
 public:
  enum class Scalars { kTyped, kWritten };
  Yaml(const fs::path& file, Config& config, Scalars scalars)
      : file_(file.string()), config_(config), scalars_(scalars) {}

  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& what) const {
    throw Error(Kind::kUsage,
                mark.is_null() ? str(file_, ": ", what) : str(file_, ":", mark.line + 1, ": ", what));
  }

  Json convert(const YAML::Node& node, const std::string& path, int depth) {
    if (depth > kMaxDepth) fail(node.Mark(), str("nested deeper than ", kMaxDepth, " levels"));
    if (++values_ > kMaxValues) fail(node.Mark(), str("more than ", kMaxValues, " values"));
    if (node.IsMap()) return object(node, path, depth);
    if (node.IsSequence()) {
      Json out = Json::array();
      for (const YAML::Node& inner : node) out.push_back(convert(inner, path, depth + 1));
      return out;
    }
    if (!node.IsScalar()) return nullptr;
    // "!" marks a quoted scalar, "?" a plain one
    if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return node.Scalar();
    return scalars_ == Scalars::kTyped ? typed(node.Scalar()) : Json(node.Scalar());
  }

 private:
  Json object(const YAML::Node& node, const std::string& path, int depth) {
    Json out = Json::object();
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) fail(entry.first.Mark(), "a key must be a word");
      const std::string key = entry.first.Scalar();
      const std::string full = path.empty() ? key : str(path, ".", key);
      if (out.contains(key))
        fail(entry.first.Mark(), str("the key \"", full, "\" stands here for the second time"));
      config_.lines[full] = entry.first.Mark().line + 1;
      out[key] = convert(entry.second, full, depth + 1);
    }
    return out;
  }

  std::string file_;
  Config& config_;
  const Scalars scalars_;
  int values_ = 0;
};

// Where a document holds something, in the order of the file.
class Documents : public YAML::EventHandler {
 public:
  YAML::Mark begin = YAML::Mark::null_mark();  // of the last document's content

  void OnDocumentStart(const YAML::Mark&) override { begin = YAML::Mark::null_mark(); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { add(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t, const std::string&) override {
    add(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    add(mark);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    add(mark);
  }
  void OnMapEnd() override {}

 private:
  void add(const YAML::Mark& mark) {
    if (begin.is_null()) begin = mark;
  }
};

// The null mark where there is one document. Not by LoadAll, which never ends on some garbage: at the end of
// what it understands, the parser finds one more document again and again.
YAML::Mark second_document(const std::string& text) {
  std::istringstream in(text);
  YAML::Parser parser(in);
  Documents documents;
  if (!parser.HandleNextDocument(documents) || !parser.HandleNextDocument(documents))
    return YAML::Mark::null_mark();
  return documents.begin;
}

Config read_yaml(const std::string& text, const fs::path& file) {
  Config config{Json::object(), {}, Json::object()};
  Yaml yaml(file, config, Yaml::Scalars::kTyped), as_written(file, config, Yaml::Scalars::kWritten);
  try {
    const YAML::Node root = YAML::Load(text);
    if (const auto second = second_document(text); !second.is_null())
      yaml.fail(second, "a second document begins here; a file of settings holds one");
    if (root.IsNull()) return config;
    if (!root.IsMap()) yaml.fail(root.Mark(), "the top level must be \"name: value\" lines");
    config.values = yaml.convert(root, "", 0);
    config.written = as_written.convert(root, "", 0);
  } catch (const YAML::Exception& e) {
    yaml.fail(e.mark, "not valid YAML: " + e.msg);
  }
  return config;
}

Config read_json_config(const std::string& text, const fs::path& file) {
  const std::string name = file.string();
  if (json_depth(text) > kMaxDepth)
    throw Error(Kind::kUsage, str(name, ": nested deeper than ", kMaxDepth, " levels"));
  std::vector<std::set<std::string>> keys(1);
  const auto check = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      throw Error(Kind::kUsage, str(name, ": the key \"", value.get<std::string>(), "\" stands there twice"));
    }
    return true;
  };
  try {
    Config config{
        text.find_first_not_of(" \t\r\n") == std::string::npos ? Json::object() : Json::parse(text, check),
        {},
        {}};
    if (!config.values.is_object()) throw Error(Kind::kUsage, name + ": the top level must be an object");
    config.written = config.values;
    return config;
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(name, " is not valid JSON: ", json_problem(e)));
  }
}

}  // namespace

Config parse_config(const std::string& text, const fs::path& file) {
  if (text.size() > kMaxBytes) throw Error(Kind::kUsage, file.string() + " is larger than 16 MiB");
  if (!is_utf8(text)) throw Error(Kind::kUsage, file.string() + " is not UTF-8");
  return lower(file.extension().string()) == ".json" ? read_json_config(text, file) : read_yaml(text, file);
}

Config read_config(const fs::path& file) {
  const std::string end = lower(file.extension().string());
  if (end != ".yaml" && end != ".yml" && end != ".json") {
    throw Error(Kind::kUsage, str(file.string(), " is not a configuration file: .yaml, .yml and .json are"));
  }
  return parse_config(read_file(file), file);
}

}  // namespace atelier::app
