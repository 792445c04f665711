#include "models/config.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace atelier::models {

template <class T>
T ConfigReader::get(const char* key, const T& otherwise, const char* expected) const {
  const auto found = json_->find(key);
  if (found == json_->end() || found->is_null()) return otherwise;
  try {
    return found->get<T>();
  } catch (const Json::exception&) {
    throw Error(Kind::kCheckpoint, str(file_, ": ", key, " must be ", expected, ", found ", found->dump()));
  }
}

int64_t ConfigReader::positive(const char* key, int64_t otherwise) const {
  const int64_t value = get<int64_t>(key, otherwise, "a whole number");
  if (value < 1 || value > (int64_t{1} << 31)) {
    throw Error(Kind::kCheckpoint, str(file_, ": ", key, " must be a positive number, found ", value));
  }
  return value;
}

double ConfigReader::number(const char* key, double otherwise) const { return get<double>(key, otherwise, "a number"); }
bool ConfigReader::boolean(const char* key, bool otherwise) const { return get<bool>(key, otherwise, "true or false"); }
std::string ConfigReader::text(const char* key, const std::string& otherwise) const {
  return get<std::string>(key, otherwise, "a string");
}
std::vector<int64_t> ConfigReader::integers(const char* key, const std::vector<int64_t>& otherwise) const {
  return get<std::vector<int64_t>>(key, otherwise, "a list of whole numbers");
}

}  // namespace atelier::models
