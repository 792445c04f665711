#include "server/access.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/constant_time.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "base/quote.h"
#include "base/text.h"

namespace atelier::server {
namespace {

constexpr size_t kShortestKey = 16;

// Without the port: "[::1]:8000" is "::1", and so is "::1" itself.
std::string host_name(std::string_view host) {
  if (host.starts_with('[')) return lower(host.substr(1, host.find(']') - 1));
  const size_t colon = host.find(':');
  const bool is_address =
      colon != std::string_view::npos && host.find(':', colon + 1) != std::string_view::npos;
  return lower(is_address ? host : host.substr(0, colon));
}

bool is_loopback_name(std::string_view name) {
  return name == "localhost" || name == "::1" || name.ends_with(".localhost") ||
         (name.starts_with("127.") && name.find_first_not_of("0123456789.") == std::string_view::npos);
}

}  // namespace

void KeyRing::add(std::string_view text, const std::string& where) {
  text = trim(text);
  const size_t colon = text.find(':');
  std::string name =
      colon == std::string_view::npos ? str("key", keys_.size() + 1) : std::string(text.substr(0, colon));
  const std::string_view key = colon == std::string_view::npos ? text : text.substr(colon + 1);
  if (key.size() < kShortestKey)
    throw Error(Kind::kUsage, str(where, ": a key needs at least ", kShortestKey,
                                  " letters; `openssl rand -hex 16` makes one"));
  for (const auto& entry : keys_) {
    if (entry.name == name) throw Error(Kind::kUsage, str(where, ": two keys are called ", name));
  }
  keys_.push_back({std::move(name), sha256(key)});
}

void KeyRing::add_file(const std::filesystem::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) == 0 && (status.st_mode & 077) != 0)
    throw Error(Kind::kUsage,
                str("api_key_file ", file.string(), " may be read by others: chmod 600 ", file.string()));
  const std::string text = read_file(file);
  int line = 0;
  for (const auto entry : split_lines(text)) {
    ++line;
    if (!trim(entry).empty() && !trim(entry).starts_with('#'))
      add(entry, str("api_key_file ", file.string(), ":", line));
  }
}

std::optional<std::string> KeyRing::owner_of(std::string_view key) const {
  const std::string digest = sha256(key);
  std::optional<std::string> found;
  for (const auto& entry : keys_) {
    if (is_equal_in_constant_time(entry.digest, digest)) found = entry.name;
  }
  return found;
}

void check_exposure(const AccessRules& rules) {
  if (is_loopback_name(host_name(rules.host)) || rules.is_secure || !rules.keys.is_empty()) return;
  throw Error(Kind::kUsage, str("host ", rules.host,
                                " can be reached from elsewhere, and anybody could draw: give --api_key_file "
                                "(or ATELIER_API_KEY), or --tls_cert and --tls_key; or listen on 127.0.0.1"));
}

namespace {

// What follows "http://" or "https://"; empty if neither does, or it is no host.
std::string_view behind_scheme(std::string_view url) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!url.starts_with(scheme)) continue;
    url.remove_prefix(scheme.size());
    const bool has_host = !url.empty() && url.front() != '/' && url.front() != ':';
    return has_host && url.find_first_of(" \t\"<>\\?#") == std::string_view::npos ? url : std::string_view();
  }
  return {};
}

}  // namespace

void check_origins(const std::vector<std::string>& origins) {
  for (const auto& origin : origins) {
    const auto host = behind_scheme(origin);
    if (host.empty() || host.find('/') != std::string_view::npos)
      throw Error(Kind::kUsage,
                  str("cors_origins ", in_quotes(origin),
                      " is no origin: scheme and host are expected, such as https://a.example"));
  }
}

void check_public_url(const std::string& url) {
  if (!url.empty() && behind_scheme(url).empty())
    throw Error(Kind::kUsage, str("public_url ", in_quotes(url),
                                  " is no address of the server: such as https://a.example is expected"));
}

AccessVerdict check_origin(const AccessRules& rules, const http::IncomingRequest& request) {
  AccessVerdict out;
  const auto host = request.header("host");
  const auto hosts = std::count_if(request.headers.begin(), request.headers.end(),
                                   [](const auto& line) { return lower(line.first) == "host"; });
  if (hosts > 1) return {400, "invalid_request", "there is more than one Host", ""};
  const std::string name = host_name(host.value_or(""));
  const auto& allowed = rules.allowed_hosts;
  const bool is_any = rules.host == "0.0.0.0" || rules.host == "::";
  // Where a name is asked for that nobody has said is ours, a page of elsewhere may have bound it to this
  // address. Names that are addresses cannot be bound.
  const bool is_address = !name.empty() && name.find_first_not_of("0123456789.") == std::string::npos;
  const bool is_known = !name.empty() && (is_loopback_name(name) || name == host_name(rules.host) ||
                                          std::any_of(allowed.begin(), allowed.end(),
                                                      [&](const auto& a) { return host_name(a) == name; }) ||
                                          (is_any && (is_address || name.find(':') != std::string::npos)));
  if (!is_known)
    return {421, "unknown_host", "the server is not known by this name; --allowed_hosts adds it", ""};
  const auto origin = request.header("origin");
  if (!origin) return out;
  const std::string own = str(request.is_secure ? "https://" : "http://", *host);
  const auto& origins = rules.cors_origins;
  if (std::find(origins.begin(), origins.end(), *origin) != origins.end()) {
    out.cors_origin = *origin;
    return out;
  }
  if (lower(*origin) == lower(own)) return out;
  return {403, "foreign_origin", "pages of this origin may not call the server; --cors_origins allows them",
          ""};
}

std::string key_in(const http::IncomingRequest& request) {
  if (const auto line = request.header("authorization")) {
    const std::string_view text = trim(*line);
    if (lower(text.substr(0, 7)) == "bearer ") return std::string(trim(text.substr(7)));
    return {};
  }
  return request.header("x-api-key").value_or("");
}

}  // namespace atelier::server
