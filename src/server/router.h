// Which function answers which path.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::server {

class ApiCall;

struct Route {
  enum class Body { kNone, kJson, kJsonOrForm, kSocket };
  std::string method, pattern;  // "/v1/jobs/{id}"; a last "{name...}" takes slashes too
  std::string summary;
  bool is_public = false;  // without a key
  Body body = Body::kNone;
  std::function<void(ApiCall&)> answer;
};

using PathValues = std::map<std::string, std::string>;

class Router {
 public:
  void add(Route route);
  struct RouteMatch {
    const Route* route = nullptr;  // null: the path is not there, or not by this method
    PathValues values;
    std::string allowed;  // methods of this path, "GET, POST"; empty: there is no such path
  };
  // path: as it was sent; each part is decoded by itself, so that "%2F" is no slash to the pattern. HEAD
  // is a GET.
  RouteMatch find(const std::string& method, const std::string& path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace atelier::server
