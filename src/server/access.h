// Who may ask: keys, the names that the server is called by, pages of other origins.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.h"

namespace atelier::server {

// Keys by what they are called. They are kept and compared as digests.
class KeyRing {
 public:
  // KEY or NAME:KEY each; a file has one on each line, and lines that begin with # are left out. Throws
  // Error(kUsage) for a key of fewer than 16 letters, a name twice, or a file that others may read.
  void add(std::string_view text, const std::string& where);
  void add_file(const std::filesystem::path& file);

  bool is_empty() const { return keys_.empty(); }
  // The name of this key; none: it is unknown. Takes as long for a wrong key as for a right one.
  std::optional<std::string> owner_of(std::string_view key) const;

 private:
  struct NamedKey {
    std::string name, digest;
  };
  std::vector<NamedKey> keys_;
};

struct AccessRules {
  std::string host;  // that the server listens on
  int port = 0;
  std::vector<std::string> allowed_hosts, cors_origins;
  KeyRing keys;
  bool is_secure = false;
};

// Throws Error(kUsage) for an address beyond loopback without a key or TLS.
void check_exposure(const AccessRules& rules);

// Throw Error(kUsage) for what is no origin such as https://a.example:8443, or no address such as
// https://a.example/draw; empty: no address.
void check_origins(const std::vector<std::string>& origins);
void check_public_url(const std::string& url);

// Why a request is refused before its body is read: 421 for a name that the server does not know itself by
// (DNS rebinding), 403 for a page of an origin that may not call it; none if nothing is wrong.
struct AccessVerdict {
  int status = 0;  // 0: nothing is wrong
  std::string code, message;
  std::string cors_origin;  // to be allowed in the answer; empty: none
};
AccessVerdict check_origin(const AccessRules& rules, const http::IncomingRequest& request);

// The key of "Authorization: Bearer KEY" or "X-Api-Key: KEY".
std::string key_in(const http::IncomingRequest& request);

}  // namespace atelier::server
