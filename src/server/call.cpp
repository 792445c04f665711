#include "server/call.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "server/job_record.h"

namespace atelier::server {
namespace {

std::string dumped(const Json& body) {
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string sse_event(const std::string& name, const Json& data) {
  return str(name.empty() ? "" : "event: " + name + "\n", "data: ", dumped(data), "\n\n");
}

ApiCall::ApiCall(http::IncomingRequest incoming, http::HttpReply way_back, Metrics& metrics)
    : request(std::move(incoming)), reply(std::move(way_back)), id(new_id("req_")), metrics_(&metrics) {}

http::HeaderLines plain_headers(const std::string& id) {
  return {{"x-request-id", id}, {"Cache-Control", "no-store"}, {"X-Content-Type-Options", "nosniff"}};
}

void count_answer(Metrics& metrics, int status) {
  metrics.count("atelier_http_requests_total", "answers", str("code=\"", status, "\""));
}

http::HeaderLines ApiCall::common_headers() const {
  http::HeaderLines out = plain_headers(id);
  if (!cors_origin.empty()) {
    out.emplace_back("Access-Control-Allow-Origin", cors_origin);
    out.emplace_back("Access-Control-Expose-Headers", "x-request-id, Retry-After");
    out.emplace_back("Vary", "Origin");
  }
  return out;
}

void ApiCall::json(int status, const Json& body, http::HeaderLines headers) const {
  send({.status = status, .body = dumped(body), .headers = std::move(headers)});
}

void ApiCall::send(http::OutgoingResponse response) const {
  if (is_answered_->exchange(true)) return;
  for (auto& line : common_headers()) {
    if (!http::header_of(response.headers, line.first)) response.headers.push_back(std::move(line));
  }
  log_answer(response.status);
  reply.send(std::move(response));
}

void ApiCall::begin_stream() const {
  http::OutgoingResponse head{.content_type = "text/event-stream", .headers = common_headers()};
  reply.begin(std::move(head));
}

void ApiCall::end_stream() const {
  if (is_answered_->exchange(true)) return;
  log_answer(200);
  reply.end();
}

// Never the query: a signature may stand in it.
void ApiCall::log_answer(int status) const {
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begun_).count();
  count_answer(*metrics_, status);
  metrics_->observe("atelier_http_seconds", "from a request's last byte to its answer", ms / 1000);
  const auto line =
      str("request=", id, " method=", request.method, " path=", request.path, " status=", status, " ms=", ms,
          " peer=", request.peer, owner.empty() ? "" : " key=" + owner);
  if (status >= 500) {
    log::warning(line);
  } else {
    log::debug(line);
  }
}

void ApiCall::fail(const std::exception_ptr& error) const {
  try {
    std::rethrow_exception(error);
  } catch (const ApiError& e) {
    http::HeaderLines headers;
    if (e.retry_after_s > 0) headers.emplace_back("Retry-After", str(e.retry_after_s));
    if (e.status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
    json(e.status, error_object(e.status, e.what(), e.code, e.param), std::move(headers));
  } catch (const std::exception& e) {
    log::error(str("request=", id, " failed: ", e.what()));
    json(500, error_object(500, str("the server failed; its log says why under ", id), "internal_error"));
  }
}

std::map<std::string, std::string> ApiCall::query() const {
  auto fields = http::query_fields(request.query);
  if (!fields) throw ApiError(400, "invalid_value", "the query cannot be read");
  return std::move(*fields);
}

}  // namespace atelier::server
