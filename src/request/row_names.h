// The names of a row's fields, and what is said about others.
#pragma once
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::request {

class RowNames {
 public:
  explicit RowNames(std::vector<std::string> known) : known_(std::move(known)) {}
  // A sentence for each field of a row that has no effect: once for every name, at the first row that has it,
  // and for so many names at most.
  void tell_of_unknown(const Json& row, const std::string& where, std::vector<std::string>& warnings);

  static constexpr size_t kMostTold = 30;

 private:
  std::vector<std::string> known_;
  std::set<std::string, std::less<>> told_;
};

// "; \"Prompt\" is to be called prompt" where one of these names stands for it; empty where none does.
std::string meant_as_prompt(std::span<const std::string> names);
std::string prompt_meant_in(const Json& row);

}  // namespace atelier::request
