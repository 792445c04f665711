// One request of a client while it is answered.
#pragma once
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <string>

#include "http/reply.h"
#include "server/api_error.h"
#include "server/metrics.h"
#include "server/router.h"

namespace atelier::server {

class ApiCall {
 public:
  // socket: null unless one was opened.
  ApiCall(http::IncomingRequest request, http::HttpReply reply, Metrics& metrics);

  http::IncomingRequest request;
  http::HttpReply reply;
  PathValues values;
  std::string id;           // of this request: in the answer, in the log
  std::string owner;        // name of the key
  std::string cors_origin;  // that may read the answer

  void json(int status, const Json& body, http::HeaderLines headers = {}) const;
  void send(http::OutgoingResponse response) const;
  // Of server-sent events.
  void begin_stream() const;
  void end_stream() const;
  // What a handler threw, as an answer; details stay in the log.
  void fail(const std::exception_ptr& error) const;
  std::map<std::string, std::string> query() const;  // throws ApiError (400)

 private:
  http::HeaderLines common_headers() const;
  void log_answer(int status) const;

  Metrics* metrics_;
  std::shared_ptr<std::atomic<bool>> is_answered_ =
      std::make_shared<std::atomic<bool>>(false);  // by any copy
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

// Of every answer.
http::HeaderLines plain_headers(const std::string& id);
void count_answer(Metrics& metrics, int status);

// "event: NAME\ndata: {...}\n\n"; no name: data alone.
std::string sse_event(const std::string& name, const Json& data);

}  // namespace atelier::server
