#include "server/json_body.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"
#include "server/api_error.h"

namespace atelier::server {

namespace {

// Of two values of one name nobody knows which is meant.
Json parsed_once(const std::string& body) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  return Json::parse(body, [&](int, Json::parse_event_t event, const Json& parsed) {
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event != Json::parse_event_t::key) return true;
    const std::string name = parsed;
    if (!names.back().insert(name).second)
      throw ApiError(400, "invalid_json", str(in_quotes(name), " is there twice"),
                     names.size() == 1 ? name : "");
    return true;
  });
}

}  // namespace

Json parsed_json(const std::string& body) {
  if (!is_utf8(body)) throw ApiError(400, "invalid_json", "the body is not UTF-8");
  if (json_depth(body) > kMaxDepth)
    throw ApiError(400, "invalid_json", str("the body nests deeper than ", kMaxDepth));
  try {
    return parsed_once(body);
  } catch (const Json::exception&) {
    throw ApiError(400, "invalid_json", "the body is not valid JSON");
  }
}

}  // namespace atelier::server
