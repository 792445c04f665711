#include "bench/family_report.h"

namespace atelier::bench {
namespace {

constexpr auto kMachines = std::to_array<ReportedMachine>({
    {"A100",
     "8xA100 (NVLink)",
     8,
     {"torch.compile gains 1.26x to 1.76x, most with 8 GPUs.",
      "At 1024 px hybrids gain 1.04x on 4 GPUs and 1.23x on 8 over one method; PipeFusion is faster than "
      "Ulysses on 8 GPUs and "
      "about as fast on 4; ring scales worst.",
      "At 2048 px, which the model is not made for, hybrids gain little; PipeFusion is much slower than "
      "Ulysses and ring on 4 "
      "and 8 GPUs, for the skips' messages, but not with degree 2; the gap from ring to Ulysses shrinks."}},
    {"L40",
     "8xL40 (PCIe)",
     8,
     {"torch.compile gains 1.2x to 1.43x.",
      "There is no significant change of latency from 4 to 8 GPUs, for the low bandwidth between sockets."}},
    {"L20",
     "8xL20 (PCIe)",
     8,
     {"The L20 has 119.5 TFLOPS in FP16, the L40 181.05; on 8 GPUs the L20 is nevertheless faster.",
      "The report heads this section 8xL40; its text is of the L20."}},
    {"V100", "8xV100 (NVLink)", 8, {"torch.compile gains 1.10x to 1.30x."}},
    {"T4", "4xT4 (PCIe)", 4, {}},
});

constexpr auto kRankings = std::to_array<ReportedRanking>({
    {"first list, 1024 px", "ulysses=2", "cfg=2, ulysses=2", "cfg=2, pipefusion=4"},
    {"second list, 1024 px", "pipefusion=2", "cfg=2, pipefusion=2", "cfg=2, pipefusion=4"},
    {"second list, 2048 px", "", "", "cfg=2, pipefusion=2, ring=2"},
});

}  // namespace

std::span<const ReportedMachine> reported_machines() {
  return kMachines;
}

std::span<const ReportedRanking> reported_rankings() {
  return kRankings;
}

}  // namespace atelier::bench
