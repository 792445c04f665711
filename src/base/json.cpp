#include "base/json.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "base/json_problem.h"
#include "base/parse_json.h"
#include "base/text.h"

namespace atelier {
namespace {

// Python writes NaN and infinities as bare words, which JSON lacks: they become strings, so that whoever asks
// for a number says what was found.
std::string with_quoted_infinities(const std::string& text) {
  std::string out;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\' && i + 1 < text.size()) {
      out += text.substr(i++, 2);
      continue;
    }
    if (c == '"') quoted = !quoted;
    size_t length = 0;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (!quoted && length == 0 && text.compare(i, word.size(), word) == 0) length = word.size();
    }
    if (length == 0) {
      out += c;
    } else {
      out += '"' + text.substr(i, length) + '"';
      i += length - 1;
    }
  }
  return out;
}

}  // namespace

Json parse_json(std::string_view text) {
  return json_depth(text) > kMaxDepth ? Json(Json::value_t::discarded) : Json::parse(text, nullptr, false);
}

Json read_json(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  if (json_depth(text) > kMaxDepth)
    throw Error(Kind::kCheckpoint, str(file.string(), " nests deeper than ", kMaxDepth, " levels"));
  try {
    return Json::parse(with_quoted_infinities(text));
  } catch (const Json::exception& e) {
    throw Error(Kind::kCheckpoint, str(file.string(), " is not valid JSON: ", json_problem(e)));
  }
}

void write_json(const std::filesystem::path& file, const Json& value) {
  write_file_atomically(file, value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace atelier
