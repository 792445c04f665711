#include "plan/hardware.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"

namespace atelier::plan {
namespace {

constexpr double kTera = 1e12, kGiga = 1e9;
constexpr int64_t kGiB = int64_t{1} << 30;

// One H200, FLUX.1-schnell at 1024 px: 84 ms of products for 59.5 TFLOP, with text and latents apart
// (docs/plan.md, "Constants").
constexpr double kH200Products = 728 * kTera, kH200ProductsPeak = 989 * kTera;
// The same run and the table of kernels: 24 heads over 16896 tokens 619, over 4608 tokens 550 TFLOP/s
// in 6.5 rounds.
constexpr double kH200Attention = 600 * kTera;
// results/attention.json: 24 heads over 16896 tokens 709, 12 over 32760 696 TFLOP/s in FlashAttention-3.
constexpr double kFlash3 = 1.13;
// A large copy on the device.
constexpr double kH200Bandwidth = 4.3e12, kH200BandwidthPeak = 4.8e12;
// Four H200s on NVLink, NCCL: all-to-all of 15.9 MB in 80 us and of nothing in 18; shifts of nothing, 21 and
// 256 MB in 78, 154 and 839 us; an all-gather as a shift at that size.
constexpr double kNvlinkPeak = 450 * kGiga;  // of an H200, one direction
constexpr double kExchangeLatency = 18e-6, kExchangeRate = 250 * kGiga;
// Two H200s, Ulysses of FLUX.1 by stores: 88 us more per attention than on one rank for 28.3 MB
// and two barriers.
constexpr double kStoreLatency = 5e-6, kStoreRate = 363 * kGiga;
constexpr double kShiftLatency = 85e-6, kShiftRate = 343 * kGiga;

// Links of this peak (bytes/s, one direction), as far from it as NVLink is on the H200.
constexpr Links links_of(std::string_view name, double peak, int island) {
  return {.name = name,
          .exchange = {kExchangeLatency, kExchangeRate * peak / kNvlinkPeak},
          .stores = {kStoreLatency, kStoreRate * peak / kNvlinkPeak},
          .shift = {kShiftLatency, kShiftRate * peak / kNvlinkPeak},
          .gather = {kExchangeLatency, kShiftRate * peak / kNvlinkPeak},
          .island = island};
}

constexpr int kAnyIsland = 1 << 20;
constexpr int kSocket = 4;  // GPUs behind one of the two sockets of an eight-GPU host
constexpr double kPcie3 = 15.75 * kGiga, kPcie4 = 31.5 * kGiga, kPcie5 = 63 * kGiga;  // x16 [PCI-SIG]
constexpr double kThroughHost = 0.4;  // of PCIe: written to the host's memory, then read from it

constexpr Hardware cited(std::string_view name, std::string_view source, int64_t memory, int capability,
                         double peak, double bandwidth, int multiprocessors, const Links& links,
                         double flash3 = 1) {
  return {.name = name,
          .source = source,
          .memory = memory,
          .capability = capability,
          .products = peak * kH200Products / kH200ProductsPeak,
          .attention = peak * kH200Attention / kH200ProductsPeak,
          .flash3 = flash3,
          .bandwidth = bandwidth * kH200Bandwidth / kH200BandwidthPeak,
          .multiprocessors = multiprocessors,
          .links = links};
}

constexpr std::array<Hardware, 7> kPresets{
    {{.name = "H200",
      .source = "measured on H200s with NVLink",
      .memory = 139 * kGiB,
      .capability = 90,
      .products = kH200Products,
      .attention = kH200Attention,
      .flash3 = kFlash3,
      .bandwidth = kH200Bandwidth,
      .multiprocessors = 132,
      .links = links_of("nvlink", kNvlinkPeak, kAnyIsland)},
     cited("H100", "cited: NVIDIA H100 SXM data sheet", 80 * kGiB, 90, 989 * kTera, 3.35e12, 132,
           links_of("nvlink", 450 * kGiga, kAnyIsland), kFlash3),
     cited("A100", "cited: NVIDIA A100 80GB SXM data sheet", 80 * kGiB, 80, 312 * kTera, 2.039e12, 108,
           links_of("nvlink", 300 * kGiga, kAnyIsland)),
     cited("L40", "cited: xDiT's performance page (181.05 TFLOPS in FP16); NVIDIA L40 data sheet", 48 * kGiB,
           89, 181.05 * kTera, 864 * kGiga, 142, links_of("pcie", kPcie4, kSocket)),
     cited("L20", "cited: xDiT's performance page (119.5 TFLOPS in FP16); NVIDIA L20 data sheet", 48 * kGiB,
           89, 119.5 * kTera, 864 * kGiga, 92, links_of("pcie", kPcie4, kSocket)),
     cited("V100", "cited: NVIDIA V100 SXM2 data sheet", 32 * kGiB, 70, 125 * kTera, 900 * kGiga, 80,
           links_of("nvlink", 150 * kGiga, kAnyIsland)),
     cited("T4", "cited: NVIDIA T4 data sheet", 16 * kGiB, 75, 65 * kTera, 320 * kGiga, 40,
           links_of("pcie", kPcie3, kSocket))}};

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

// Whether `word` stands in `text` between characters that are neither letters nor digits: "NVIDIA L40" holds
// L40 and "NVIDIA L40S" does not.
bool has_word(std::string_view text, std::string_view word) {
  const auto is_part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !is_part(text[at - 1])) && (end == text.size() || !is_part(text[end]))) return true;
  }
  return false;
}

// The generation of PCIe that a GPU speaks.
double pcie_peak(const Hardware& of) {
  if (of.name == "H100" || of.name == "H200") return kPcie5;
  return of.name == "V100" || of.name == "T4" ? kPcie3 : kPcie4;
}

}  // namespace

std::span<const Hardware> hardware_presets() {
  return kPresets;
}

const Hardware* find_hardware(std::string_view name) {
  const std::string wanted = upper(name);
  for (const Hardware& h : kPresets) {
    if (has_word(wanted, h.name)) return &h;
  }
  return nullptr;
}

Links links_named(std::string_view name, const Hardware& of) {
  if (name == of.links.name) return of.links;
  if (name == "pcie") return links_of("pcie", pcie_peak(of), kSocket);
  if (name == "host") {
    Links links = links_of("host", kThroughHost * pcie_peak(of), kSocket);
    links.stores = {0, 0};
    return links;
  }
  if (name == "nvlink" && of.links.name != "nvlink") {
    throw Error(Kind::kUsage, str("links nvlink: the ", of.name, " has none; there are pcie and host"));
  }
  throw Error(Kind::kUsage, str("links \"", name, "\" are unknown; there are nvlink, pcie and host"));
}

Links at_measured_rate(Links links, double rate) {
  // A plain copy between two GPUs comes nearest to a shift.
  const double share = rate / links.shift.rate;
  for (MessageCost* m : {&links.exchange, &links.stores, &links.shift, &links.gather}) m->rate *= share;
  return links;
}

}  // namespace atelier::plan
