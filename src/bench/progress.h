// progress.md: the test plan's template, rewritten while a protocol runs.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::bench {

// The plan's seven tasks, in its order and words.
enum PlanTask {
  kSetUp,
  kDetected,
  kInstalled,
  kStrategiesTested,
  kScalingMeasured,
  kBenchmarked,
  kDocumented,
  kTasks
};

struct ProgressNote {
  std::array<bool, kTasks> done = {};
  std::array<std::string, kTasks> remark = {};  // behind a task, in parentheses; may be empty
  std::string now;                              // what is being done
  std::vector<std::string> issues;              // none: "None."
  std::string next;
  int percent() const;  // tasks done of all
};

std::string progress_text(const ProgressNote& note);

}  // namespace atelier::bench
