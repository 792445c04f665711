#include "hub/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace atelier::hub {
namespace {

constexpr size_t kMostBody = 64 << 20;
constexpr int kMostRedirects = 5;
constexpr long kConnectSeconds = 20, kSilentSeconds = 30;

using Url = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

Url parse(const std::string& text) {
  Url url(curl_url(), curl_url_cleanup);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) url.reset();
  return url;
}

std::string part(const Url& url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (!url || curl_url_get(url.get(), which, &text, flags) != CURLUE_OK) return {};
  std::string out(text);
  curl_free(text);
  return out;
}

std::string origin(const std::string& text) {
  const Url url = parse(text);
  return part(url, CURLUPART_SCHEME) + "://" + part(url, CURLUPART_HOST) + ":" +
         part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
}

std::string absolute(const std::string& base, const std::string& location) {
  const Url url = parse(base);
  if (!url || curl_url_set(url.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK) return {};
  return part(url, CURLUPART_URL);
}

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool may_help_to_retry(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return true;
    default:
      return false;
  }
}

// What curl's callbacks see. Exceptions must not pass through C: they wait here.
struct Exchange {
  const HttpRequest& request;
  const std::stop_token& stop;
  HttpResponse response;
  bool has_begun = false;
  std::exception_ptr thrown;

  void deliver(std::span<const std::byte> bytes) {
    const bool wanted = request.data && (response.status == 200 || response.status == 206);
    if (!wanted) {
      if (response.body.size() + bytes.size() > kMostBody)
        throw Error(Kind::kCheckpoint, "the server's answer is too long");
      response.body.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return;
    }
    if (!std::exchange(has_begun, true) && request.begin) request.begin(response);
    if (!bytes.empty()) request.data(bytes);
  }
};

size_t on_header(char* text, size_t, size_t bytes, void* user) {
  auto& response = static_cast<Exchange*>(user)->response;
  const std::string_view line(text, bytes);
  if (line.starts_with("HTTP/")) {  // a later block replaces an interim one
    response.headers.clear();
    const auto space = line.find(' ');
    response.status =
        space == std::string_view::npos ? 0 : static_cast<int>(std::strtol(text + space, nullptr, 10));
    return bytes;
  }
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || response.headers.size() > 200) return bytes;
  std::string name(line.substr(0, colon));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  auto value = line.substr(colon + 1);
  while (!value.empty() && std::isspace(static_cast<unsigned char>(value.front()))) value.remove_prefix(1);
  while (!value.empty() && std::isspace(static_cast<unsigned char>(value.back()))) value.remove_suffix(1);
  response.headers[std::move(name)] = value;
  return bytes;
}

size_t on_data(char* text, size_t, size_t bytes, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  try {
    exchange.deliver({reinterpret_cast<const std::byte*>(text), bytes});
    return bytes;
  } catch (...) {
    exchange.thrown = std::current_exception();
    return 0;
  }
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<Exchange*>(user)->stop.stop_requested() ? 1 : 0;
}

void start_curl() {
  static std::once_flag once;
  std::call_once(once, [] { ENSURE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK); });
}

}  // namespace

struct HttpClient::Handle {
  CURL* curl = nullptr;
};

HttpClient::HttpClient(std::stop_token stop) : handle_(std::make_unique<Handle>()), stop_(std::move(stop)) {
  start_curl();
  handle_->curl = curl_easy_init();
  ENSURE(handle_->curl != nullptr);
}

HttpClient::~HttpClient() {
  curl_easy_cleanup(handle_->curl);
}

std::string HttpResponse::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? std::string() : at->second;
}

HttpResponse HttpClient::send_once(const HttpRequest& request, const std::string& url, bool with_token) {
  CURL* const curl = handle_->curl;
  curl_easy_reset(curl);  // keeps connections
  Exchange exchange{request, stop_, {}, false, {}};
  curl_slist* headers = nullptr;
  if (with_token) headers = curl_slist_append(headers, ("Authorization: Bearer " + request.token).c_str());
  const std::string range = std::to_string(request.from) + "-";
  char why[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_NOBODY, request.method == HttpRequest::Method::kHead ? 1L : 0L);
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "atelier/0.1");
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  if (request.from > 0) curl_easy_setopt(curl, CURLOPT_RANGE, range.c_str());
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kSilentSeconds);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &exchange);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &exchange);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &exchange);
  const CURLcode code = curl_easy_perform(curl);
  curl_slist_free_all(headers);
  if (exchange.thrown) std::rethrow_exception(exchange.thrown);
  if (stop_.stop_requested())
    throw Error(Kind::kInterrupted, "the download was stopped; run again to go on with it");
  if (code == CURLE_OK) {
    exchange.deliver({});  // a body of no bytes begins too
  } else {
    exchange.response.failure = why[0] != '\0' ? why : curl_easy_strerror(code);
    exchange.response.is_transient = may_help_to_retry(code);
  }
  return std::move(exchange.response);
}

HttpResponse HttpClient::send(const HttpRequest& request) {
  const bool is_head = request.method == HttpRequest::Method::kHead;
  const std::string home = origin(request.url);
  std::string url = request.url;
  for (int hop = 0; hop <= kMostRedirects; ++hop) {
    const bool is_home = origin(url) == home;
    auto response = send_once(request, url, is_home && !request.token.empty());
    if (!is_redirect(response.status) || !response.failure.empty()) return response;
    const std::string next = absolute(url, response.header("location"));
    const bool is_safe =
        next.starts_with("https://") || (next.starts_with("http://") && !url.starts_with("https://"));
    if (!is_safe) {
      response.failure = "the server redirects to no usable address";
      return response;
    }
    const bool is_known = !response.header("x-linked-etag").empty() || origin(next) != home;
    if (is_head && is_known) return response;
    url = next;
  }
  HttpResponse lost;
  lost.failure = "the server redirects in a circle";
  return lost;
}

namespace {

std::string encoded(std::string_view text, std::string_view kept) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) || kept.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += {'%', kHex[u >> 4], kHex[u & 15]};
    }
  }
  return out;
}

}  // namespace

std::string url_path(std::string_view text) {
  return encoded(text, "-._~/");
}

std::string url_part(std::string_view text) {
  return encoded(text, "-._~");
}

}  // namespace atelier::hub
