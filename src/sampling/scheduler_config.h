// Typed reads of scheduler_config.json.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace atelier::sampling {

// Every read throws Error(kCheckpoint) naming the key if its value is of another type. null counts as absent.
class SchedulerConfig {
 public:
  explicit SchedulerConfig(const Json& json) : json_(json) {}
  double number(const char* key, double otherwise) const;
  std::optional<double> number(const char* key) const;
  std::optional<double> limit(const char* key) const;  // a number that may be an infinity
  int64_t integer(const char* key, int64_t otherwise) const;
  bool flag(const char* key, bool otherwise = false) const;
  std::vector<double> numbers(const char* key) const;  // empty: absent
  // Throws Error(kCheckpoint) listing the words that are known, if it is none of them.
  std::string word(const char* key, const std::string& otherwise,
                   std::span<const std::string_view> known) const;
  std::string word(const char* key, const std::string& otherwise,
                   std::initializer_list<std::string_view> known) const {
    return word(key, otherwise, std::span(known.begin(), known.size()));
  }
  bool has(const char* key) const;  // and it is not null
  // Throws Error(kCheckpoint) if the flag is set.
  void refuse(const char* key, std::string_view why) const;
  int64_t trained() const;  // num_train_timesteps

 private:
  const Json& json_;
};

[[noreturn]] void refuse_option(std::string_view key, std::string_view why);

}  // namespace atelier::sampling
