#include "server/json_body.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "server/api_error.h"

namespace atelier::server {

Json parsed_json(const std::string& body) {
  if (!is_utf8(body)) throw ApiError(400, "invalid_json", "the body is not UTF-8");
  if (json_depth(body) > kMaxDepth)
    throw ApiError(400, "invalid_json", str("the body nests deeper than ", kMaxDepth));
  try {
    return Json::parse(body);
  } catch (const Json::exception&) {
    throw ApiError(400, "invalid_json", "the body is not valid JSON");
  }
}

}  // namespace atelier::server
