// Of a protocol's page: memory per rank, and what ranks tell each other.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/page_parts.h"
#include "bench/result.h"

namespace atelier::bench {
namespace {

struct RankBytes {
  double weights = 0, counted = 0;  // of the device's allocator; where there is none, of the model's parts
  double activations = 0, reserve = 0, libraries = 0;
};

// The weights of a rank by the planner's count.
std::optional<double> counted_bytes(const Json& row, size_t rank) {
  const auto all = row.value("modelled", Json::object()).value("weight_bytes", Json::array());
  return rank < all.size() ? std::optional(all[rank].get<double>()) : std::nullopt;
}

// Of every rank. What the driver counts above the allocator's reserve is the context, NCCL's
// buffers and graphs.
std::vector<RankBytes> parts_of(const Json& row) {
  std::vector<RankBytes> out;
  const auto& m = row.at("measured");
  const auto held = peaks(row);
  for (size_t r = 0; r < held.size(); ++r) {
    RankBytes b;
    if (r < m.at("weight_bytes").size()) b.weights = m["weight_bytes"][r].get<double>();
    b.weights = std::min(b.weights, held[r]);
    if (b.weights == 0) b.counted = std::min(counted_bytes(row, r).value_or(0), held[r]);
    b.activations = held[r] - b.weights - b.counted;
    const double reserved = number(m["peak_memory"][r], "reserved_bytes");
    b.reserve = std::max(0., reserved - held[r]);
    const auto gpus = m.value("gpus", Json::array());
    if (r < gpus.size() && reserved > 0) b.libraries = std::max(0., number(gpus[r], "used_bytes") - reserved);
    out.push_back(b);
  }
  return out;
}

Cell weights_cell(const Json& row, size_t rank) {
  const auto& all = row.at("measured").at("weight_bytes");
  const double bytes = rank < all.size() ? all[rank].get<double>() : 0;
  return bytes > 0 ? measured_cell(bytes, 1 / kGiB) : modelled_cell(counted_bytes(row, rank), 1 / kGiB);
}

Chart memory_chart(const Json& result, const std::vector<const Json*>& rows) {
  const bool is_gpu = is_on_gpus(result);
  Chart chart{.id = "memory",
              .title = is_gpu ? "Most memory of every rank" : "Most host memory of every rank",
              .kind = ChartKind::kStacks,
              .values_title = "GiB"};
  ChartSeries weights{"weights", Basis::kMeasured, {}}, counted{"weights by count", Basis::kModelled, {}},
      activations{is_gpu ? "activations and buffers" : "everything else", Basis::kMeasured, {}},
      reserve{"kept by the allocator", Basis::kMeasured, {}},
      libraries{"context, NCCL, graphs", Basis::kMeasured, {}};
  const auto add = [](ChartSeries& s, double bytes) {
    s.values.push_back(bytes > 0 ? std::optional(ChartValue{bytes / kGiB}) : std::nullopt);
  };
  for (const auto* row : rows) {
    if (!is_measured(*row)) continue;
    size_t rank = 0;
    for (const auto& b : parts_of(*row)) {
      chart.categories.push_back(str(layout_of(*row), ", rank ", rank++));
      add(weights, b.weights), add(counted, b.counted), add(activations, b.activations),
          add(reserve, b.reserve), add(libraries, b.libraries);
    }
  }
  chart.series = {weights, counted, activations, reserve, libraries};
  return without_empty(chart);
}

// Every rank of every layout would be too many: one GPU, scaling, and each method alone on the most GPUs.
std::vector<const Json*> for_chart(const Json& result, const std::vector<const Json*>& rows) {
  int most = 1;
  for (const auto* row : rows) {
    if (is_measured(*row)) most = std::max(most, gpus_of(*row));
  }
  const auto scaling = rows_for(result, Topic::kScaling);
  std::vector<const Json*> out;
  for (const auto* row : rows) {
    const bool is_alone = layout_of(*row).find(',') == std::string::npos && gpus_of(*row) == most;
    if (is_alone || std::find(scaling.begin(), scaling.end(), row) != scaling.end()) out.push_back(row);
  }
  return out;
}

std::vector<const Json*> with_baseline(const Json& result, Topic topic) {
  auto rows = rows_for(result, topic);
  const Json* one = baseline(result);
  if (one && std::find(rows.begin(), rows.end(), one) == rows.end()) rows.insert(rows.begin(), one);
  return rows;
}

Chart traffic_chart(const Json& result) {
  Chart chart{.id = "traffic",
              .title = "What all ranks send for one picture, by collective",
              .kind = ChartKind::kStacks,
              .values_title = "MB"};
  std::vector<std::string> verbs;
  for (const auto& t : result.value("traffic", Json::array())) {
    chart.categories.push_back(layout_of(t));
    for (const auto& v : t.at("collectives")) {
      const auto verb = v.at("verb").get<std::string>();
      if (std::find(verbs.begin(), verbs.end(), verb) == verbs.end()) verbs.push_back(verb);
    }
  }
  for (const auto& verb : verbs) {
    ChartSeries s{verb, Basis::kMeasured, {}};
    for (const auto& t : result["traffic"]) {
      std::optional<ChartValue> value;
      for (const auto& v : t.at("collectives"))
        if (v["verb"] == verb && number(v, "bytes") > 0) value = ChartValue{number(v, "bytes") / 1e6};
      s.values.push_back(value);
    }
    chart.series.push_back(std::move(s));
  }
  return without_empty(chart);
}

}  // namespace

PageSection memory_section(const Json& result) {
  PageSection out{.id = "memory", .title = "Memory"};
  const auto rows = with_baseline(result, Topic::kStrategies);
  auto chart = memory_chart(result, for_chart(result, rows));
  if (!chart.categories.empty()) out.charts.push_back(std::move(chart));
  Table table{"memory",
              "Most memory of each rank, GiB",
              {"layout", "rank", "weights", "allocated", "reserved", "in use by the driver's count", "host",
               "planner"},
              {}};
  for (const auto* row : rows) {
    if (!is_measured(*row)) continue;
    const auto& m = row->at("measured");
    const auto gpus = m.value("gpus", Json::array());
    size_t r = 0;
    for (const auto& peak : m.at("peak_memory")) {
      const auto gib = [](const Json& in, const char* key) {
        return number(in, key) > 0 ? measured_cell(number(in, key), 1 / kGiB) : Cell{};
      };
      Cell model;
      const auto plan = row->value("modelled", Json::object()).value("peak_bytes", Json::array());
      if (r < plan.size()) model = modelled_cell(plan[r].get<double>(), 1 / kGiB);
      table.rows.push_back({asked(layout_of(*row)), asked(static_cast<double>(r)), weights_cell(*row, r),
                            gib(peak, "device_bytes"), gib(peak, "reserved_bytes"),
                            r < gpus.size() ? gib(gpus[r], "used_bytes") : Cell{}, gib(peak, "host_bytes"),
                            model});
      ++r;
    }
  }
  out.tables.push_back(table);
  return out;
}

PageSection traffic_section(const Json& result) {
  PageSection out{.id = "communication", .title = "Communication"};
  const auto traffic = result.value("traffic", Json::array());
  if (traffic.empty()) {
    out.lines.push_back({"Not measured here: it needs more than one rank."});
    return out;
  }
  out.charts.push_back(traffic_chart(result));
  Table table{"traffic",
              "Collectives of one picture, all ranks together",
              {"layout", "collective", "calls", "MB sent", "ms under way, rank 0", "% of the picture",
               "GB/s of rank 0"},
              {}};
  for (const auto& t : traffic) {
    for (const auto& v : t.at("collectives")) {
      const auto maybe = [&](const char* key, double times = 1) {
        return v.contains(key) ? measured_cell(number(v, key), times) : Cell{"not in the trace"};
      };
      const double batch = number(t, "batch_ms");
      table.rows.push_back({asked(layout_of(t)),
                            {v.at("verb").get<std::string>()},
                            measured_cell(number(v, "calls")),
                            measured_cell(number(v, "bytes"), 1e-6),
                            maybe("ms"),
                            batch > 0 ? maybe("ms", 100 / batch) : Cell{},
                            maybe("gb_per_s")});
    }
    table.rows.push_back(
        {asked(layout_of(t)),
         {"any"},
         {},
         {},
         t.contains("share") ? measured_cell(number(t, "under_way_ms")) : Cell{"not in the trace"},
         t.contains("share") ? measured_cell(number(t, "share"), 100) : Cell{},
         {}});
  }
  out.tables.push_back(table);
  out.lines.push_back(
      {"A message is under way from its first moment to its last, hidden behind other work or not, waiting "
       "for "
       "slower ranks included. Pictures were traced for it, one after a picture that was not. Where a trace "
       "shows sends and receives only, they count for the collective that sends nearly all bytes, or for "
       "none."});
  const auto& machine = result.at("machine");
  if (machine.contains("nvlink_note"))
    out.lines.push_back({machine["nvlink_note"].get<std::string>(), Basis::kMeasured});
  return out;
}

}  // namespace atelier::bench
