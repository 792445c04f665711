#include "server/router.h"

#include "http/message.h"

namespace atelier::server {
namespace {

std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> out;
  while (!path.empty()) {
    path.remove_prefix(1);  // a slash
    const size_t end = std::min(path.find('/'), path.size());
    out.push_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return out;
}

std::optional<PathValues> match(const std::string& pattern, std::string_view path) {
  const auto wanted = parts_of(pattern), given = parts_of(path);
  PathValues values;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (i >= given.size()) return std::nullopt;
    const auto part = wanted[i];
    if (!part.starts_with('{')) {
      if (part != given[i]) return std::nullopt;
      continue;
    }
    const bool takes_rest = part.ends_with("...}");
    std::string raw(given[i]);
    if (takes_rest) {
      for (size_t k = i + 1; k < given.size(); ++k) raw += "/" + std::string(given[k]);
    }
    auto value = http::percent_decoded(raw);
    if (!value || value->empty()) return std::nullopt;
    values[std::string(part.substr(1, part.size() - (takes_rest ? 5 : 2)))] = std::move(*value);
    if (takes_rest) return values;
  }
  return wanted.size() == given.size() ? std::optional(values) : std::nullopt;
}

}  // namespace

void Router::add(Route route) {
  routes_.push_back(std::move(route));
}

Router::RouteMatch Router::find(const std::string& method, const std::string& path) const {
  RouteMatch out;
  if (!path.starts_with('/')) return out;
  const std::string wanted = method == "HEAD" ? "GET" : method;
  for (const auto& route : routes_) {
    auto values = match(route.pattern, path);
    if (!values) continue;
    if (route.method == wanted) return {&route, std::move(*values), {}};
    out.allowed += (out.allowed.empty() ? "" : ", ") + route.method;
  }
  return out;
}

}  // namespace atelier::server
