// Typed reads from a component's config.json; a wrong type or value is an error that names file and key.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atelier::models {

class ConfigReader {
 public:
  // Throws Error(kCheckpoint) unless it is an object.
  ConfigReader(const Json& json, std::string_view file);
  // Absent or null: the default. Throws Error(kCheckpoint).
  int64_t positive(const char* key, int64_t otherwise, int64_t most = int64_t{1} << 31) const;
  // How often something repeats: at most 1000, so that a slip does not build layers for minutes.
  int64_t layers(const char* key, int64_t otherwise) const { return positive(key, otherwise, 1000); }
  double number(const char* key, double otherwise) const;
  double above_zero(const char* key, double otherwise) const;  // what is divided by, or keeps a root real
  bool boolean(const char* key, bool otherwise) const;
  std::string text(const char* key, const std::string& otherwise) const;
  std::vector<double> numbers(const char* key) const;  // absent or null: none
  std::vector<int64_t> integers(const char* key, const std::vector<int64_t>& otherwise) const;

 private:
  using Fits = bool (*)(const Json&);
  template <class T>
  T get(const char* key, const T& otherwise, Fits fits, const char* expected) const;
  const Json* json_;
  std::string file_;
};

}  // namespace atelier::models
