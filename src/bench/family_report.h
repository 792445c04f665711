// What the performance report of HunyuanDiT says, machine by machine. Its numbers stand in pictures there and
// are not read off them: only its text is cited.
#pragma once
#include <array>
#include <span>
#include <string_view>

namespace atelier::bench {

inline constexpr std::string_view kReportSource = "xDiT, docs/performance/hunyuandit.md";

struct ReportedMachine {
  std::string_view preset;  // of the planner: "A100"
  std::string_view title;   // "8xA100 (NVLink)"
  int gpus = 8;
  std::array<std::string_view, 3> says = {};  // a sentence each; empty ones are left out
};
std::span<const ReportedMachine> reported_machines();

// The report gives two lists of fastest layouts for the same machine; they are not the same, and
// both are shown.
struct ReportedRanking {
  std::string_view name;
  std::string_view gpus_2, gpus_4, gpus_8;  // empty: it names none
};
std::span<const ReportedRanking> reported_rankings();

}  // namespace atelier::bench
