// What a check of the machine found, and what to do about it.
#pragma once
#include <string>
#include <vector>

namespace atelier::app {

struct Finding {
  enum class Grade { kFine, kAdvice, kProblem };
  std::string what;   // "GPU"; empty: goes on with the one above
  std::string found;  // "NVIDIA H200, 141 GiB"
  Grade grade = Grade::kFine;
  std::string todo = {};  // one clause, where it is not fine
};

using Findings = std::vector<Finding>;

}  // namespace atelier::app
