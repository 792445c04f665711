#include "bench/protocol.h"

#include <algorithm>

#include "base/error.h"

namespace atelier::bench {
namespace {

enum class Needs { kNothing, kGuidance, kStages };

struct Row {
  int gpus;
  std::string_view strategy;
  Topic topic;
  Needs needs = Needs::kNothing;
};

// The test plan's configurations (ring for 2; Ulysses and the hybrid for 4; Ulysses and the hybrid with
// stages for 8), and beside them every strategy alone. What serves two topics stands twice.
constexpr Row kLayouts[] = {
    {1, "data=1", Topic::kScaling},
    {2, "ulysses=2", Topic::kScaling},
    {4, "ulysses=4", Topic::kScaling},
    {8, "ulysses=8", Topic::kScaling},
    {2, "ulysses=2", Topic::kStrategies},
    {2, "ring=2", Topic::kStrategies},
    {2, "tensor=2", Topic::kStrategies},
    {2, "pipefusion=2", Topic::kStrategies, Needs::kStages},
    {2, "cfg=2", Topic::kStrategies, Needs::kGuidance},
    {4, "ulysses=4", Topic::kStrategies},
    {4, "ring=4", Topic::kStrategies},
    {4, "ulysses=2, ring=2", Topic::kStrategies},
    {4, "tensor=4", Topic::kStrategies},
    {4, "pipefusion=4", Topic::kStrategies, Needs::kStages},
    {4, "pipefusion=2, ulysses=2", Topic::kStrategies, Needs::kStages},
    {4, "cfg=2, ulysses=2", Topic::kStrategies, Needs::kGuidance},
    {4, "cfg=2, pipefusion=2", Topic::kStrategies, Needs::kGuidance},
    {8, "ulysses=8", Topic::kStrategies},
    {8, "ulysses=4, ring=2", Topic::kStrategies},
    {8, "pipefusion=2, ulysses=4", Topic::kStrategies, Needs::kStages},
    {8, "cfg=2, ulysses=4", Topic::kStrategies, Needs::kGuidance},
    {8, "cfg=2, pipefusion=4", Topic::kStrategies, Needs::kGuidance},
    {2, "ulysses=2", Topic::kTraffic},
    {2, "ring=2", Topic::kTraffic},
    {2, "pipefusion=2", Topic::kTraffic, Needs::kStages},
    {4, "ulysses=4", Topic::kTraffic},
    {4, "ulysses=2, ring=2", Topic::kTraffic},
    {8, "ulysses=8", Topic::kTraffic},
};
constexpr int kGpuCounts[] = {1, 2, 4, 8};
constexpr int kLargeRuns = 3;  // of sizes whose pictures take many times as long

class List {
 public:
  explicit List(const ProtocolQuery& query) : query_(query) {}

  // The same thing is measured once, for whoever asks; a trace is a run of its own.
  void add(Measurement m, Topic topic) {
    if (m.height == 0) m.height = query_.height, m.width = query_.width;
    m.topics = static_cast<unsigned>(topic);
    m.id = id_of(m);
    const auto same = std::find_if(list_.begin(), list_.end(), [&](const auto& o) { return o.id == m.id; });
    if (same == list_.end()) {
      list_.push_back(std::move(m));
    } else {
      same->topics |= m.topics;
      if (same->mode.empty()) same->mode = m.mode;
    }
  }

  void layouts(Topic topic) {
    for (const auto& row : kLayouts) {
      if (row.topic != topic) continue;
      if (row.needs == Needs::kGuidance && query_.branches < 2) continue;
      const bool has_stages = row.strategy.find("pipefusion") != std::string_view::npos;
      if (has_stages && query_.is_unet) continue;
      add({.strategy = std::string(row.strategy), .gpus = row.gpus}, topic);
    }
  }

  void sizes() {
    const auto most = static_cast<int>(*std::find_if(std::rbegin(kGpuCounts), std::rend(kGpuCounts),
                                                     [&](int n) { return n <= std::max(1, query_.gpus); }));
    for (const int side : query_.sizes) {
      const int runs = side > query_.height ? kLargeRuns : 0;
      add({.strategy = "data=1", .height = side, .width = side, .most_runs = runs}, Topic::kSizes);
      if (most > 1)
        add({.strategy = str("ulysses=", most, ", parallel_vae"),
             .gpus = most,
             .height = side,
             .width = side,
             .most_runs = runs},
            Topic::kSizes);
    }
  }

  void batches() {
    for (const int batch : query_.batches) add({.strategy = "data=1", .batch = batch}, Topic::kBatches);
  }

  void throughput() {
    add({.strategy = "data=1", .mode = "single"}, Topic::kThroughput);
    for (const int n : kGpuCounts) {
      if (n == 1) continue;
      add({.strategy = "split", .mode = "dataparallel", .gpus = n, .batch = n}, Topic::kThroughput);
      add({.strategy = str("data=", n), .mode = "multi", .gpus = n, .batch = n}, Topic::kThroughput);
    }
  }

  std::vector<Measurement> take() { return std::move(list_); }

 private:
  const ProtocolQuery& query_;
  std::vector<Measurement> list_;
};

}  // namespace

std::string_view name_of(Topic topic) {
  switch (topic) {
    case Topic::kScaling:
      return "scaling";
    case Topic::kStrategies:
      return "strategies";
    case Topic::kSizes:
      return "sizes";
    case Topic::kBatches:
      return "batches";
    case Topic::kThroughput:
      return "throughput";
    case Topic::kGraphs:
      return "graphs";
    case Topic::kTraffic:
      return "traffic";
  }
  return "";
}

std::string id_of(const Measurement& m) {
  std::string out;
  for (const char c : m.strategy) {
    if (c == '=' || c == ',') out += c == '=' ? '_' : '-';
    if (c != '=' && c != ',' && c != ' ') out += c;
  }
  out += str("-", m.height, "x", m.width, "-b", m.batch);
  if (m.strategy == "split") out += str("-n", m.gpus);
  if (!m.has_graphs) out += "-no_graphs";
  if (m.is_for(Topic::kTraffic)) out += "-traced";
  return out;
}

std::vector<Measurement> measurements(const ProtocolQuery& query) {
  List list(query);
  if (query.name == kWholeProtocol) {
    list.layouts(Topic::kScaling);
    list.layouts(Topic::kStrategies);
    list.sizes();
    list.batches();
    list.throughput();
    if (query.is_gpu) list.add({.strategy = "data=1", .has_graphs = false}, Topic::kGraphs);
    list.layouts(Topic::kTraffic);
  } else if (query.name == "throughput") {
    list.throughput();
    list.batches();
  } else {
    throw Error(Kind::kUsage, str("--protocol ", query.name, " is unknown; there are ", kWholeProtocol,
                                  " and ", kThroughputProtocol));
  }
  return list.take();
}

}  // namespace atelier::bench
