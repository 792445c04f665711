#include "models/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::models {

ConfigReader::ConfigReader(const Json& json, std::string_view file) : json_(&json), file_(file) {
  if (!json.is_object()) throw Error(Kind::kCheckpoint, str(file_, " must hold a JSON object"));
}

template <class T>
T ConfigReader::get(const char* key, const T& otherwise, Fits fits, const char* expected) const {
  const auto found = json_->find(key);
  if (found == json_->end() || found->is_null()) return otherwise;
  if (!fits(*found))
    throw Error(Kind::kCheckpoint, str(file_, ": ", key, " must be ", expected, ", found ", found->dump()));
  return found->get<T>();
}

namespace {

bool is_whole(const Json& j) {
  return j.is_number_integer();
}
bool is_list_of_whole(const Json& j) {
  return j.is_array() && std::all_of(j.begin(), j.end(), is_whole);
}

}  // namespace

int64_t ConfigReader::positive(const char* key, int64_t otherwise, int64_t most) const {
  const int64_t value = get<int64_t>(key, otherwise, is_whole, "a whole number");
  if (value < 1 || value > most) {
    throw Error(Kind::kCheckpoint,
                str(file_, ": ", key, " must be a positive number up to ", most, ", found ",
                    json_->contains(key) ? json_->at(key).dump() : std::to_string(value)));
  }
  return value;
}

double ConfigReader::number(const char* key, double otherwise) const {
  return get<double>(
      key, otherwise, [](const Json& j) { return j.is_number(); }, "a number");
}
double ConfigReader::above_zero(const char* key, double otherwise) const {
  const double value = number(key, otherwise);
  if (!(value > 0)) throw Error(Kind::kCheckpoint, str(file_, ": ", key, " must be above 0, found ", value));
  return value;
}
bool ConfigReader::boolean(const char* key, bool otherwise) const {
  return get<bool>(
      key, otherwise, [](const Json& j) { return j.is_boolean(); }, "true or false");
}
std::string ConfigReader::text(const char* key, const std::string& otherwise) const {
  return get<std::string>(
      key, otherwise, [](const Json& j) { return j.is_string(); }, "a string");
}
std::vector<double> ConfigReader::numbers(const char* key) const {
  return get<std::vector<double>>(
      key, {},
      [](const Json& j) {
        return j.is_array() && std::all_of(j.begin(), j.end(), [](const Json& v) { return v.is_number(); });
      },
      "a list of numbers");
}
std::vector<int64_t> ConfigReader::integers(const char* key, const std::vector<int64_t>& otherwise) const {
  return get<std::vector<int64_t>>(key, otherwise, is_list_of_whole, "a list of whole numbers");
}

}  // namespace atelier::models
