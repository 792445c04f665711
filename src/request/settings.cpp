// Settings compared by value.
#include "request/settings.h"

#include <algorithm>
#include <cmath>

#include "base/digest.h"
#include "base/parse_json.h"

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

bool knows_files(const Json& settings) {
  return std::any_of(settings.items().begin(), settings.items().end(),
                     [](const auto& entry) { return entry.key().ends_with(kHashSuffix); });
}

// What the model is called says nothing where its files are known.
bool is_name_only(std::string_view key) {
  return key == "model" || key == "revision";
}

// Adapters as they were asked for, without the paths to their files: ":0.5@transformer_2". Also of a list
// that stands in a picture's file as text.
Json without_paths(const Json& adapters) {
  if (adapters.is_string()) {
    const Json list = parse_json(adapters.get<std::string>());
    return list.is_array() ? without_paths(list) : adapters;
  }
  Json out = Json::array();
  for (const Json& name : adapters) {
    const std::string text = name.is_string() ? name.get<std::string>() : name.dump();
    out.push_back(text.substr(std::min(text.rfind(':'), text.size())));
  }
  return out;
}

// What the files of adapters hold says more than how the way to them is spelled.
bool are_same_adapters(const Json& a, const Json& b) {
  const auto is_known = [](const Json& side) {
    return side.contains("lora") && side.contains("lora_digest");
  };
  return is_known(a) && is_known(b) && a["lora_digest"] == b["lora_digest"] &&
         without_paths(a["lora"]) == without_paths(b["lora"]);
}

}  // namespace

std::string canonical(const Json& settings) {
  return normal(settings).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string settings_hash(const Json& settings) {
  Json what = settings;
  if (knows_files(what)) what.erase("model"), what.erase("revision");
  return sha256(canonical(what)).substr(0, 16);
}

std::vector<std::string> differing_keys(const Json& asked, const Json& recorded) {
  const Json a = normal(asked), b = normal(recorded);
  Json keys = Json::object();
  for (const Json* side : {&a, &b}) {
    for (const auto& [key, value] : side->items()) keys[key] = nullptr;
  }
  const bool skips_names = knows_files(a) && knows_files(b);
  std::vector<std::string> out;
  for (const auto& [key, unused] : keys.items()) {
    if (key == "seed" && !a.contains(key)) continue;
    if (skips_names && is_name_only(key)) continue;
    if (key == "lora" && are_same_adapters(a, b)) continue;
    if (!a.contains(key) || !b.contains(key) || a[key] != b[key]) out.push_back(key);
  }
  return out;
}

}  // namespace atelier::request
