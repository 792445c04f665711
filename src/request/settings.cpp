// Settings compared by value.
#include "request/settings.h"

#include <cmath>

#include "base/digest.h"

namespace atelier::request {
namespace {

Json normal(const Json& value) {
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::isfinite(number) && number == std::floor(number) && std::abs(number) < 9e15)
      return static_cast<int64_t>(number);
    return value;
  }
  if (value.is_object()) {
    Json out = Json::object();
    for (const auto& [key, inner] : value.items()) {
      if (!inner.is_null()) out[key] = normal(inner);
    }
    return out;
  }
  if (value.is_array()) {
    Json out = Json::array();
    for (const Json& inner : value) out.push_back(normal(inner));
    return out;
  }
  return value;
}

}  // namespace

std::string canonical(const Json& settings) {
  return normal(settings).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string settings_hash(const Json& settings) {
  return sha256(canonical(settings)).substr(0, 16);
}

std::vector<std::string> differing_keys(const Json& asked, const Json& recorded) {
  const Json a = normal(asked), b = normal(recorded);
  Json keys = Json::object();
  for (const Json* side : {&a, &b}) {
    for (const auto& [key, value] : side->items()) keys[key] = nullptr;
  }
  std::vector<std::string> out;
  for (const auto& [key, unused] : keys.items()) {
    if (key == "seed" && !a.contains(key)) continue;
    if (!a.contains(key) || !b.contains(key) || a[key] != b[key]) out.push_back(key);
  }
  return out;
}

}  // namespace atelier::request
