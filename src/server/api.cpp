// Routes, and what is looked at before any of them answers.
#include "server/api.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "http/form.h"

namespace atelier::server {

Api::Api(ApiOptions options, const RequestMaker& maker, Dispatcher& dispatcher, AdapterShelf& adapters,
         JobStore& store, Metrics& metrics)
    : options_(std::move(options)),
      maker_(maker),
      dispatcher_(dispatcher),
      adapters_(adapters),
      store_(store),
      metrics_(metrics),
      generation_fields_(Endpoint::kGenerations, options_.caps),
      edit_fields_(Endpoint::kEdits, options_.caps),
      video_fields_(Endpoint::kVideos, options_.caps),
      signing_key_(store.kept("signing_key", new_id(""))) {
  add_routes();
}

namespace {

// In any case, with or without parameters.
bool is_json(std::string_view content_type) {
  return lower(trim(content_type.substr(0, content_type.find(';')))) == "application/json";
}

}  // namespace

void Api::add(std::string method, std::string pattern, std::string summary, void (Api::*answer)(ApiCall&),
              Route::Body body, bool is_public) {
  router_.add({.method = std::move(method),
               .pattern = std::move(pattern),
               .summary = std::move(summary),
               .is_public = is_public,
               .body = body,
               .answer = [this, answer](ApiCall& call) { (this->*answer)(call); }});
}

void Api::add_routes() {
  using enum Route::Body;
  add("POST", "/v1/images/generations", "Draw pictures from a prompt", &Api::generations, kJson);
  add("POST", "/v1/images/edits", "Draw on a picture, or on a masked part of it", &Api::edits, kJsonOrForm);
  add("POST", "/v1/videos", "Draw a video", &Api::create_video, kJsonOrForm);
  add("GET", "/v1/videos", "Videos, newest first", &Api::list_videos);
  add("GET", "/v1/videos/{id}", "How far a video is", &Api::show_video);
  add("DELETE", "/v1/videos/{id}", "Give up and forget a video", &Api::delete_video);
  add("GET", "/v1/videos/{id}/content", "A video's file", &Api::video_content);
  add("GET", "/v1/models", "The model that is loaded", &Api::models);
  add("GET", "/v1/models/{id...}", "The model of this id", &Api::model);
  add("GET", "/v1/capabilities", "What every field of a request does here", &Api::capabilities);
  add("GET", "/v1/adapters", "The adapters that requests may name", &Api::adapters);
  add("POST", "/v1/adapters/reload", "Look at the folder of adapters again", &Api::reload_adapters);
  add("GET", "/v1/jobs", "Jobs, newest first", &Api::list_jobs);
  add("GET", "/v1/jobs/{id}", "One job", &Api::show_job);
  add("DELETE", "/v1/jobs/{id}", "Cancel a job that is open, forget one that is not", &Api::delete_job);
  add("POST", "/v1/jobs/{id}/cancel", "Cancel a job", &Api::cancel_job);
  add("GET", "/v1/jobs/{id}/events", "A job's progress, as server-sent events", &Api::job_events);
  add("GET", "/v1/jobs/{id}/images/{index}", "A picture of a job", &Api::job_image);
  add("GET", "/v1/files/{id}/{index}", "A picture by a signed address", &Api::signed_image, kNone, true);
  add("GET", "/v1/status", "Queue, groups and memory", &Api::status);
  add("GET", "/v1/events", "The progress of all jobs of a key, over a WebSocket", nullptr, kSocket);
  add("GET", "/v1/events/stream", "The progress of all jobs of a key, as server-sent events",
      &Api::all_events);
  add("GET", "/health", "State in one object", &Api::health, kNone, true);
  add("GET", "/livez", "The process answers", &Api::live, kNone, true);
  add("GET", "/readyz", "Requests are taken and drawn", &Api::ready, kNone, true);
  add("GET", "/healthz/generate", "Draws a small picture", &Api::try_generation);
  add("GET", "/metrics", "Counters in Prometheus' format", &Api::metrics);
  add("GET", "/openapi.json", "This description", &Api::openapi, kNone, true);
  add("GET", "/", "A page to draw with", &Api::page, kNone, true);
}

std::string Api::owner_of(const http::IncomingRequest& request) const {
  if (options_.access.keys.is_empty()) return {};
  const auto owner = options_.access.keys.owner_of(key_in(request));
  if (!owner) throw ApiError(401, "invalid_api_key", "a key is needed: Authorization: Bearer KEY");
  return *owner;
}

http::BodyPlan Api::plan(const http::IncomingRequest& head) {
  const auto refused = [&](int status, const Json& body, http::HeaderLines headers = {}) {
    return http::BodyPlan{
        .refusal = counted({.status = status, .body = body.dump(), .headers = std::move(headers)},
                           str(" method=", head.method, " path=", head.path, " peer=", head.peer))};
  };
  const auto verdict = check_origin(options_.access, head);
  if (verdict.status != 0)
    return refused(verdict.status, error_object(verdict.status, verdict.message, verdict.code));
  if (head.method == "OPTIONS" && !verdict.cors_origin.empty()) {
    return {.refusal = http::OutgoingResponse{
                .status = 204,
                .content_type = "",
                .headers = {{"Access-Control-Allow-Origin", verdict.cors_origin},
                            {"Access-Control-Allow-Methods", "GET, POST, DELETE"},
                            {"Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key"},
                            {"Access-Control-Max-Age", "600"},
                            {"Vary", "Origin"}}}};
  }
  const auto match = router_.find(head.method, head.path);
  if (!match.route && match.allowed.empty())
    return refused(404, error_object(404, "there is no such path", "unknown_path"));
  if (!match.route)
    return refused(405, error_object(405, str("this path takes ", match.allowed), "method_not_allowed"),
                   {{"Allow", match.allowed}});
  if (!match.route->is_public) {
    try {
      owner_of(head);
    } catch (const ApiError& e) {
      return refused(e.status, error_object(e.status, e.what(), e.code), {{"WWW-Authenticate", "Bearer"}});
    }
  }
  const std::string type = head.header("content-type").value_or("");
  const bool is_form = http::form_boundary(type).has_value();
  switch (match.route->body) {
    case Route::Body::kNone:
      return {.most_bytes = 0};
    case Route::Body::kSocket:
      return {.is_websocket = true};
    case Route::Body::kJson:
    case Route::Body::kJsonOrForm:
      break;
  }
  const bool takes_form = match.route->body == Route::Body::kJsonOrForm;
  // a page of elsewhere can send any other type without being asked whether it may
  if (!is_json(type) && !(is_form && takes_form)) {
    return refused(415,
                   error_object(415,
                                takes_form ? "Content-Type must be application/json or multipart/form-data"
                                           : "Content-Type must be application/json",
                                "unsupported_media_type"));
  }
  return {.most_bytes = options_.max_body_bytes, .is_form = is_form};
}

void Api::handle(http::IncomingRequest request, http::HttpReply reply) {
  const auto match = router_.find(request.method, request.path);
  ApiCall call(std::move(request), std::move(reply), metrics_);
  try {
    call.values = match.values;
    call.cors_origin = check_origin(options_.access, call.request).cors_origin;
    if (!match.route->is_public) call.owner = owner_of(call.request);
    match.route->answer(call);
  } catch (...) {
    call.fail(std::current_exception());
  }
}

http::OutgoingResponse Api::own_answer(int status, const std::string& message) {
  const char* code = status == 413 ? "body_too_large" : status == 503 ? "overloaded" : "invalid_request";
  return counted({.status = status, .body = error_object(status, message, code).dump()}, "");
}

// An answer to what becomes no call: it has an id and is counted as all others.
http::OutgoingResponse Api::counted(http::OutgoingResponse response, const std::string& asked) const {
  const std::string id = new_id("req_");
  for (auto& line : plain_headers(id)) response.headers.push_back(std::move(line));
  count_answer(metrics_, response.status);
  log::debug(str("request=", id, asked, " status=", response.status));
  return response;
}

}  // namespace atelier::server
