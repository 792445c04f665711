// What HTTP messages are to whoever answers them. No sockets here.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/form.h"

namespace atelier::http {

using HeaderLines = std::vector<std::pair<std::string, std::string>>;

struct IncomingRequest;
// Path and query from a request line's target. Of one with a host, "http://a:80/b", that host is the one that
// is asked. [RFC 9112 3.2.2]
void set_target(IncomingRequest& request, std::string target);

// The value of the first line of this name, in any case; none if there is none.
std::optional<std::string> header_of(const HeaderLines& lines, std::string_view name);

struct IncomingRequest {
  std::string method, path, query;  // path: as it was sent, without the query
  HeaderLines headers;
  std::string peer;        // address
  bool is_secure = false;  // came over TLS
  std::string body;        // unless it was a form
  std::vector<FormPart> form;

  std::optional<std::string> header(std::string_view name) const { return header_of(headers, name); }
};

struct OutgoingResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  HeaderLines headers = {};
};

// "%2F" as "/", in a query also "+" as " ". None for a broken escape or a NUL.
std::optional<std::string> percent_decoded(std::string_view text, bool is_query = false);
// "a=1&b=2"; the last of one name counts. None where a part cannot be decoded.
std::optional<std::map<std::string, std::string>> query_fields(std::string_view query);
std::string_view reason_phrase(int status);

}  // namespace atelier::http
