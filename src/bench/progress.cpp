#include "bench/progress.h"

#include <algorithm>

#include "base/error.h"

namespace atelier::bench {
namespace {

constexpr std::array<std::string_view, kTasks> kTaskNames{
    "Environment setup",          "Multi-GPU detection verified", "xDiT installed",
    "Parallel strategies tested", "Scaling efficiency measured",  "Benchmarking completed",
    "Results documented"};

}  // namespace

int ProgressNote::percent() const {
  return static_cast<int>(100 * std::count(done.begin(), done.end(), true) / kTasks);
}

std::string progress_text(const ProgressNote& note) {
  std::string out = str("# Progress: xDiT Multi-GPU Optimization\n\n## Overall Progress: ", note.percent(),
                        "%\n\n### Completed Tasks:\n");
  for (int i = 0; i < kTasks; ++i) {
    out += str("- [", note.done[i] ? "x" : " ", "] ", kTaskNames[i]);
    if (!note.remark[i].empty()) out += str(" (", note.remark[i], ")");
    out += '\n';
  }
  out += str("\n### Current Status:\n", note.now, "\n\n### Issues/Blockers:\n");
  if (note.issues.empty()) out += "None.\n";
  for (const auto& issue : note.issues) out += str("- ", issue, "\n");
  return out + str("\n### Next Steps:\n", note.next, "\n");
}

}  // namespace atelier::bench
