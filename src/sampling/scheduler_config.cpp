#include "sampling/scheduler_config.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::sampling {
namespace {

// null if absent.
const Json* find(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

}  // namespace

void refuse_option(std::string_view key, std::string_view why) {
  throw Error(Kind::kCheckpoint, str("scheduler_config.json: ", key, " ", why));
}

bool SchedulerConfig::has(const char* key) const {
  return find(json_, key);
}

std::optional<double> SchedulerConfig::number(const char* key) const {
  const Json* value = find(json_, key);
  if (!value) return std::nullopt;
  if (!value->is_number()) refuse_option(key, str("must be a number, found ", value->dump()));
  return value->get<double>();
}

std::optional<double> SchedulerConfig::limit(const char* key) const {
  const Json* value = find(json_, key);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (value && *value == "-Infinity") return -kInfinity;
  if (value && *value == "Infinity") return kInfinity;
  return number(key);
}

double SchedulerConfig::number(const char* key, double otherwise) const {
  return number(key).value_or(otherwise);
}

int64_t SchedulerConfig::integer(const char* key, int64_t otherwise) const {
  const auto value = number(key);
  if (!value) return otherwise;
  if (*value != std::floor(*value) || std::abs(*value) > 1e9)
    refuse_option(key, str("must be an integer, found ", *value));
  return static_cast<int64_t>(*value);
}

bool SchedulerConfig::flag(const char* key, bool otherwise) const {
  const Json* value = find(json_, key);
  if (!value) return otherwise;
  if (!value->is_boolean()) refuse_option(key, str("must be true or false, found ", value->dump()));
  return value->get<bool>();
}

std::vector<double> SchedulerConfig::numbers(const char* key) const {
  std::vector<double> out;
  const Json* value = find(json_, key);
  if (!value) return out;
  if (!value->is_array()) refuse_option(key, str("must be a list of numbers, found ", value->dump()));
  for (const auto& v : *value) {
    if (!v.is_number()) refuse_option(key, str("must be a list of numbers, found ", v.dump(), " in it"));
    out.push_back(v.get<double>());
  }
  return out;
}

std::string SchedulerConfig::word(const char* key, const std::string& otherwise,
                                  std::span<const std::string_view> known) const {
  const Json* value = find(json_, key);
  std::string found = !value ? otherwise : value->is_string() ? value->get<std::string>() : "";
  std::string list;
  for (size_t i = 0; i < known.size(); ++i) {
    if (found == known[i]) return found;
    list += str(i == 0 ? "" : i + 1 == known.size() ? " or " : ", ", known[i]);
  }
  refuse_option(key, str("must be ", list, ", found ", value ? value->dump() : otherwise));
}

void SchedulerConfig::refuse(const char* key, std::string_view why) const {
  if (flag(key))
    refuse_option(key, str("is not supported", why.empty() ? "" : ": ", why, "; set it to false"));
}

int64_t SchedulerConfig::trained() const {
  const int64_t count = integer("num_train_timesteps", 1000);
  if (count < 2 || count > 1'000'000)
    refuse_option("num_train_timesteps", str("must be from 2 to 1000000, found ", count));
  return count;
}

}  // namespace atelier::sampling
