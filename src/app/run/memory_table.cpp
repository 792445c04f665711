// The table of memory.
#include "app/run/memory_table.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "report/clock.h"

namespace atelier::app {
namespace {

using Part = pipeline::Component::ComponentKind;

// The guide's numbers per GPU, in GB. [Multi-GPU SDXL Generation Guide, "Memory Requirements"]
constexpr const char* kCitedEncoders = "2 to 3";
constexpr const char* kCitedDenoiser = "6 to 8";
constexpr const char* kCitedVae = "1 to 2";
constexpr const char* kCitedBuffers = "2 to 3";
constexpr const char* kCitedAll = "12 to 18";

std::string line(const char* part, int64_t bytes, const char* cited) {
  std::string name(part);
  name.resize(std::max<size_t>(name.size(), 15), ' ');
  std::string text = report::bytes_text(bytes);
  text.resize(std::max<size_t>(text.size(), 10), ' ');
  return str("  ", name, text, "  cited: ", cited, " GB");
}

}  // namespace

std::vector<std::string> memory_lines(const RunSpec& spec, const std::vector<cluster::RankStats>& ranks) {
  const bool is_cuda = spec.device.device.is_cuda();
  const auto peak_of = [is_cuda](const cluster::RankStats& r) {
    return is_cuda ? r.peak_device_bytes : r.peak_host_bytes;
  };
  const auto fullest = std::max_element(
      ranks.begin(), ranks.end(), [&](const auto& a, const auto& b) { return peak_of(a) < peak_of(b); });
  if (fullest == ranks.end() || peak_of(*fullest) == 0) return {};
  const auto& types = spec.job.engine.precision;
  std::map<Part, int64_t> bytes;
  for (const auto& [part, count] : spec.model.folder.check().parameters) {
    const auto kind = spec.model.folder.component(part).kind;
    bytes[kind] += count * pipeline::bytes_of_type(kind == Part::kDenoiser ? types.denoiser
                                                   : kind == Part::kVae    ? types.vae
                                                                           : types.encoders);
  }
  const int64_t buffers = std::max<int64_t>(0, peak_of(*fullest) - fullest->weight_bytes);
  return {str("memory   of rank ", fullest->rank, " on the ", is_cuda ? "GPU" : "CPU",
              ": parts by their tensors, peak measured; cited: what the SDXL guide says of each GPU, not "
              "measured"),
          line("text encoders", bytes[Part::kEncoder], kCitedEncoders),
          line("denoiser", bytes[Part::kDenoiser], kCitedDenoiser),
          line("VAE", bytes[Part::kVae], kCitedVae),
          line("buffers", buffers, kCitedBuffers),
          line("peak", peak_of(*fullest), kCitedAll)};
}

std::vector<std::string> chunk_lines(const std::vector<cluster::RankStats>& ranks) {
  std::set<std::string> lines;
  for (const auto& rank : ranks) {
    for (const auto& used : rank.used) {
      if (used.starts_with("chunked forward: ")) lines.insert("memory   " + used);
    }
  }
  return {lines.begin(), lines.end()};
}

}  // namespace atelier::app
