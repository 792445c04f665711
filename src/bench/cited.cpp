#include "bench/cited.h"

#include <array>
#include <nlohmann/json.hpp>

namespace atelier::bench {
namespace {

constexpr std::string_view kPlan = "test plan \"xDiT Multi-GPU Optimization\"";
constexpr std::string_view kXditFlux = "xDiT, docs/performance/flux.md";
constexpr std::string_view kHunyuan = "xDiT, docs/performance/hunyuandit.md";
constexpr std::string_view kGuide = "Multi-GPU SDXL Generation Guide";
constexpr std::string_view kNotSaid = "not said";

constexpr std::array kFigures = std::to_array<Cited>({
    {"plan-4", "speed-up on 4 GPUs", "2.6x", 2.6, 4, "", "4x H100", "FLUX.1-schnell", "4 (as the plan says)",
     kNotSaid, kPlan, "xDiT's own figure is of FLUX.1-dev with 28 steps", About::kSpeedUp},
    {"plan-4-s", "one 1024 px picture on 4 GPUs", "~1.6 s", 1.6, 4, "", "4x H100", "FLUX.1-schnell",
     "4 (as the plan says)", kNotSaid, kPlan, "xDiT's own figure is of FLUX.1-dev with 28 steps"},
    {"plan-8-s", "one 1024 px picture on 8 GPUs", "below 1 s", std::nullopt, 8, "", "8x H100",
     "FLUX.1-schnell", kNotSaid, kNotSaid, kPlan},
    {"xdit-dev-1", "one 1024 px picture on 1 GPU", "4.30 s", 4.30, 1, "", "H100", "FLUX.1-dev", "28",
     "compiled", kXditFlux},
    {"xdit-dev-4", "the same on 4 GPUs", "1.63 s", 1.63, 4, "", "4x H100", "FLUX.1-dev", "28", "compiled",
     kXditFlux},
    {"xdit-dev-1-eager", "the same on 1 GPU, eager", "6.71 s", 6.71, 1, "", "H100", "FLUX.1-dev", "28",
     "eager", kXditFlux},
    {"xdit-dev-4-eager", "the same on 4 GPUs, eager", "4.24 s", 4.24, 4, "", "4x H100", "FLUX.1-dev", "28",
     "eager", kXditFlux},
    {"xdit-schnell-8", "one 1024 px picture on 8 GPUs", "0.82 s", 0.82, 8, "", "8x A100", "FLUX.1-schnell",
     "4", kNotSaid, kXditFlux},
    {"guide-2-dp", "throughput, 2 GPUs, DataParallel", "~1.6x", 1.6, 2, "dataparallel", kNotSaid, "SDXL",
     kNotSaid, kNotSaid, kGuide, "memory ~1.2x, complexity medium; whether in all or per GPU is not said",
     About::kThroughput},
    {"guide-2-mp", "throughput, 2 GPUs, multi-process", "~1.9x", 1.9, 2, "multi", kNotSaid, "SDXL", kNotSaid,
     kNotSaid, kGuide, "memory ~2x, complexity high", About::kThroughput},
    {"guide-4-dp", "throughput, 4 GPUs, DataParallel", "~2.5x", 2.5, 4, "dataparallel", kNotSaid, "SDXL",
     kNotSaid, kNotSaid, kGuide, "memory ~1.5x, complexity medium", About::kThroughput},
    {"guide-4-mp", "throughput, 4 GPUs, multi-process", "~3.8x", 3.8, 4, "multi", kNotSaid, "SDXL", kNotSaid,
     kNotSaid, kGuide, "memory ~4x, complexity high; elsewhere the guide says it scales linearly",
     About::kThroughput},
    {"guide-8", "throughput, 8 GPUs", "4.0x to 6.0x", std::nullopt, 8, "", kNotSaid, "SDXL", kNotSaid,
     kNotSaid, kGuide, "elsewhere the guide says it scales linearly", About::kThroughput},
    {"compile-a100", "torch.compile against eager", "1.26x to 1.76x, most with 8 GPUs", std::nullopt, 0, "",
     "8x A100 (NVLink)", "HunyuanDiT", kNotSaid, "both", kHunyuan, "not what CUDA graphs gain",
     About::kCompile},
    {"compile-l40", "torch.compile against eager", "1.2x to 1.43x", std::nullopt, 0, "", "8x L40 (PCIe)",
     "HunyuanDiT", kNotSaid, "both", kHunyuan, "no significant change of latency from 4 to 8 GPUs",
     About::kCompile},
    {"compile-v100", "torch.compile against eager", "1.10x to 1.30x", std::nullopt, 0, "", "8x V100 (NVLink)",
     "HunyuanDiT", kNotSaid, "both", kHunyuan, "", About::kCompile},
    {"hybrid-4", "hybrid against one method, 1024 px", "1.04x", 1.04, 4, "", "8x A100 (NVLink)", "HunyuanDiT",
     kNotSaid, kNotSaid, kHunyuan, "PipeFusion about as fast as Ulysses; ring scales worst", About::kHybrid},
    {"hybrid-8", "hybrid against one method, 1024 px", "1.23x", 1.23, 8, "", "8x A100 (NVLink)", "HunyuanDiT",
     kNotSaid, kNotSaid, kHunyuan, "PipeFusion faster than Ulysses; ring scales worst", About::kHybrid},
    {"hybrid-2048", "hybrid against one method, 2048 px", "marginal on 4 and 8 GPUs", std::nullopt, 0, "",
     "8x A100 (NVLink)", "HunyuanDiT", kNotSaid, kNotSaid, kHunyuan,
     "PipeFusion much slower than Ulysses and ring on 4 and 8 GPUs, not with degree 2; the model is not made "
     "for 2048 px",
     About::kHybrid},
    {"tflops-l40", "FP16 peak", "181.05 TFLOPS", 181.05, 1, "", "L40", "", "", "", kHunyuan, "",
     About::kHardware},
    {"tflops-l20", "FP16 peak", "119.5 TFLOPS", 119.5, 1, "", "L20", "", "", "", kHunyuan,
     "on 8 GPUs nevertheless faster than the L40; the section is headed 8xL40 in the source",
     About::kHardware},
});

}  // namespace

std::span<const Cited> cited_figures() {
  return kFigures;
}

Json to_json(const Cited& f) {
  Json out{{"id", f.id},       {"what", f.what},         {"value", f.value},
           {"kind", "cited"},  {"hardware", f.hardware}, {"model", f.model},
           {"steps", f.steps}, {"compile", f.compile},   {"source", f.source},
           {"gpus", f.gpus}};
  if (f.number) out["number"] = *f.number;
  if (!f.remark.empty()) out["remark"] = f.remark;
  if (!f.mode.empty()) out["mode"] = f.mode;
  return out;
}

}  // namespace atelier::bench
