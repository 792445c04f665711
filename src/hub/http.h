// One HTTP request at a time, over libcurl. Redirects are followed by hand so that a token never leaves its
// host. Inside of the room.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

namespace atelier::hub {

struct HttpResponse {
  int status = 0;                              // 0: no answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // unless it went to `data`; at most 64 MB
  std::string failure;                         // why there is no (whole) answer; empty if there is
  bool is_transient = false;                   // trying again may help
  std::string header(const std::string& name) const;
};

struct HttpRequest {
  enum class Method { kGet, kHead };
  Method method = Method::kGet;
  std::string url;
  std::string token;  // sent as a bearer token to the scheme, host and port of `url` only
  int64_t from = 0;   // first byte wanted; 0: all
  // Receives a body whose status is 200 or 206, after one call of `begin`. May throw.
  std::function<void(const HttpResponse&)> begin;
  std::function<void(std::span<const std::byte>)> data;
};

class HttpClient {
 public:
  explicit HttpClient(std::stop_token stop);
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();

  // Follows up to five redirects; with kHead only those that stay on the host, and not where the answer
  // already names the file behind it (x-linked-etag). Throws Error(kInterrupted) when stopped, and what
  // `begin` and `data` throw.
  HttpResponse send(const HttpRequest& request);

 private:
  HttpResponse send_once(const HttpRequest& request, const std::string& url, bool with_token);

  struct Handle;
  std::unique_ptr<Handle> handle_;
  std::stop_token stop_;
};

// Percent-encodes everything but letters, digits and -._~/
std::string url_path(std::string_view text);
// The slash too: of one part of a path.
std::string url_part(std::string_view text);

}  // namespace atelier::hub
