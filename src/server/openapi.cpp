#include "server/openapi.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace atelier::server {
namespace {

constexpr int kErrors[] = {400, 401, 403, 404, 405, 409, 413, 415, 421, 422, 429, 500, 503, 504};

Json reference(const char* name) {
  return {{"$ref", std::string("#/components/schemas/") + name}};
}

Json response(const std::string& about, const std::string& type, const Json& schema) {
  return {{"description", about}, {"content", {{type, {{"schema", schema}}}}}};
}

// What a path answers when nothing is wrong.
Json good_responses(const Route& route) {
  const auto& path = route.pattern;
  const Json object{{"type", "object"}};
  if (path == "/") return {{"200", response("the page", "text/html; charset=utf-8", {{"type", "string"}})}};
  if (path == "/metrics")
    return {{"200", response("counters", "text/plain; version=0.0.4; charset=utf-8", {{"type", "string"}})}};
  if (path.ends_with("/events") || path.ends_with("/stream"))
    return {{"200", response("events", "text/event-stream", Json::object())}};
  if (path.ends_with("{index}")) {
    Json out{{"description", "the picture"}, {"content", Json::object()}};
    for (const char* type : {"image/png", "image/jpeg", "image/webp"})
      out["content"][type] = {{"schema", {{"type", "string"}, {"format", "binary"}}}};
    return {{"200", out}};
  }
  if (path == "/v1/videos/{id}/content") {
    Json out{{"description", "the video"}, {"content", Json::object()}};
    for (const char* type : {"video/mp4", "image/webp", "image/gif"})
      out["content"][type] = {{"schema", {{"type", "string"}, {"format", "binary"}}}};
    return {{"200", out}};
  }
  if (path.starts_with("/v1/images/")) {
    Json done = response("the pictures", "application/json", reference("Images"));
    done["content"]["text/event-stream"] = {{"schema", {{"type", "string"}}}};
    return {{"200", done},
            {"202", response("the job, which is drawn", "application/json", reference("Job"))}};
  }
  const bool is_job = path.starts_with("/v1/jobs/") && route.method != "DELETE";
  return {{"200", response("as described", "application/json", is_job ? reference("Job") : object)}};
}

Json parameters_of(const Route& route) {
  Json out = Json::array();
  for (size_t at = route.pattern.find('{'); at != std::string::npos; at = route.pattern.find('{', at + 1)) {
    std::string name = route.pattern.substr(at + 1, route.pattern.find('}', at) - at - 1);
    name = name.substr(0, name.find('.'));
    out.push_back({{"name", name},
                   {"in", "path"},
                   {"required", true},
                   {"schema", {{"type", "string"}, {"minLength", 1}}}});
  }
  if (route.pattern == "/v1/jobs") {
    out.push_back({{"name", "limit"},
                   {"in", "query"},
                   {"schema", {{"type", "integer"}, {"minimum", 1}, {"maximum", 200}}}});
    out.push_back({{"name", "before"}, {"in", "query"}, {"schema", {{"type", "string"}, {"minLength", 1}}}});
  }
  if (route.pattern == "/v1/videos" && route.method == "GET") {
    out.push_back({{"name", "limit"},
                   {"in", "query"},
                   {"schema", {{"type", "integer"}, {"minimum", 0}, {"maximum", 100}}}});
    out.push_back({{"name", "after"}, {"in", "query"}, {"schema", {{"type", "string"}}}});
    out.push_back({{"name", "order"}, {"in", "query"}, {"schema", {{"enum", {"desc"}}}}});
  }
  if (route.pattern == "/v1/videos/{id}/content")
    out.push_back({{"name", "variant"}, {"in", "query"}, {"schema", {{"enum", {"video"}}}}});
  if (route.pattern.starts_with("/v1/images/") || (route.pattern == "/v1/videos" && route.method == "POST"))
    out.push_back({{"name", "Idempotency-Key"},
                   {"in", "header"},
                   {"schema", {{"type", "string"}, {"maxLength", 255}}}});
  if (route.pattern.starts_with("/v1/files/")) {
    for (const char* name : {"expires", "signature"})
      out.push_back({{"name", name}, {"in", "query"}, {"required", true}, {"schema", {{"type", "string"}}}});
  }
  return out;
}

std::string without_dots(std::string pattern) {
  const size_t dots = pattern.find("...");
  return dots == std::string::npos ? pattern : pattern.erase(dots, 3);
}

Json schemas(const Json& requests) {
  const Json nullable_text{{"type", {"string", "null"}}};
  const Json notes{{"type", "array"},
                   {"items", {{"type", "string"}}},
                   {"description", "what has no effect, or was changed"}};
  Json out = {{"Error",
               {{"type", "object"},
                {"required", {"error"}},
                {"properties",
                 {{"error",
                   {{"type", "object"},
                    {"required", {"message", "type", "param", "code"}},
                    {"properties",
                     {{"message", {{"type", "string"}}},
                      {"type", {{"type", "string"}}},
                      {"param", nullable_text},
                      {"code", nullable_text}}}}}}}}},
              {"Images",
               {{"type", "object"},
                {"required", {"created", "data"}},
                {"properties",
                 {{"created", {{"type", "integer"}}},
                  {"job", {{"type", "string"}}},
                  {"size", {{"type", "string"}}},
                  {"output_format", {{"type", "string"}}},
                  {"background", {{"type", "string"}}},
                  {"quality", {{"type", "null"}}},
                  {"usage", {{"type", "null"}}},
                  {"seconds", {{"type", "number"}}},
                  {"seeds", {{"type", "array"}, {"items", {{"type", "integer"}}}}},
                  {"notes", notes},
                  {"data",
                   {{"type", "array"},
                    {"items",
                     {{"type", "object"},
                      {"properties",
                       {{"b64_json", nullable_text},
                        {"url", nullable_text},
                        {"revised_prompt", nullable_text}}}}}}}}}}},
              {"Job",
               {{"type", "object"},
                {"required", {"id", "object", "status", "images"}},
                {"properties",
                 {{"id", {{"type", "string"}}},
                  {"object", {{"const", "job"}}},
                  {"notes", notes},
                  {"status", {{"enum", {"queued", "running", "done", "failed", "cancelled"}}}},
                  {"images", {{"type", "array"}, {"items", {{"type", "object"}}}}}}}}}};
  out.update(requests);
  return out;
}

}  // namespace

Json openapi_document(const Router& router, const Json& requests, const std::string& version) {
  Json paths = Json::object();
  for (const auto& route : router.routes()) {
    if (route.body == Route::Body::kSocket) continue;  // OpenAPI knows none
    Json operation{{"summary", route.summary},
                   {"responses", good_responses(route)},
                   {"parameters", parameters_of(route)}};
    for (const int code : kErrors)
      operation["responses"][std::to_string(code)] =
          response("refused", "application/json", reference("Error"));
    if (route.is_public) {
      operation["security"] = Json::array();
    }
    if (route.pattern == "/readyz" || route.pattern == "/healthz/generate")
      operation["responses"]["503"] = response("not ready", "application/json", {{"type", "object"}});
    if (route.body == Route::Body::kJson || route.body == Route::Body::kJsonOrForm) {
      const bool is_edit = route.body == Route::Body::kJsonOrForm;
      const bool is_video = route.pattern == "/v1/videos",
                 has_fields = is_video || route.pattern.starts_with("/v1/images/");
      const Json schema = has_fields ? reference(is_video  ? "VideoRequest"
                                                 : is_edit ? "Edit"
                                                           : "Generation")
                                     : Json{{"type", "object"}};
      operation["requestBody"] = {{"required", true},
                                  {"content", {{"application/json", {{"schema", schema}}}}}};
      if (is_edit) operation["requestBody"]["content"]["multipart/form-data"] = {{"schema", schema}};
    }
    std::string method = route.method;
    std::transform(method.begin(), method.end(), method.begin(),
                   [](unsigned char c) { return std::tolower(c); });
    paths[without_dots(route.pattern)][method] = std::move(operation);
  }
  return {{"openapi", "3.1.0"},
          {"info",
           {{"title", "Atelier"},
            {"version", version},
            {"description", "Pictures from prompts, by OpenAI's Images API and beyond it."}}},
          {"security", Json::array({{{"key", Json::array()}}, Json::object()})},
          {"paths", std::move(paths)},
          {"components",
           {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}},
            {"schemas", schemas(requests)}}}};
}

}  // namespace atelier::server
