#include "bench/family_page.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "bench/family_report.h"
#include "bench/result.h"

namespace atelier::bench {
namespace {

constexpr int kPlain = 1024, kLarge = 2048;
constexpr int kChartedCounts[] = {1, 2, 4, 8};

Cell number_cell(const FamilyRow& row, double value) {
  return {number_text(value), row.source};
}

// How a layout shares the work: one method alone, or several.
std::string method_of(const std::string& layout) {
  if (layout.find(',') != std::string::npos) return "hybrid";
  for (const auto* name : {"ulysses", "ring", "kv_gather", "pipefusion", "cfg", "tensor"}) {
    if (layout.starts_with(name)) return name;
  }
  return "one GPU";
}

std::vector<const FamilyRow*> rows_on(const FamilyQuery& q, const std::string& hardware, int side) {
  std::vector<const FamilyRow*> out;
  for (const auto& r : q.rows) {
    if (r.hardware == hardware && (side == 0 || r.side == side)) out.push_back(&r);
  }
  return out;
}

const FamilyRow* fastest(const std::vector<const FamilyRow*>& rows, int gpus,
                         const std::string& method = "") {
  const FamilyRow* best = nullptr;
  for (const auto* r : rows) {
    const bool is_wanted = r->gpus == gpus && (method.empty() || method_of(r->layout) == method);
    if (is_wanted && (!best || r->ms_per_step < best->ms_per_step)) best = r;
  }
  return best;
}

std::string slug(const std::string& text) {
  std::string out;
  for (const char c : lower(text)) out += std::isalnum(static_cast<unsigned char>(c)) ? c : '-';
  return out;
}

Chart latency_chart(const std::string& hardware, const std::vector<const FamilyRow*>& rows) {
  Chart chart{.id = "latency-" + slug(hardware),
              .title = "Latency by layout, 1024 px, " + hardware,
              .values_title = "ms per step"};
  ChartSeries s{"ms per step", Basis::kMeasured, {}};
  for (const auto* r : rows) {
    s.source = r->source;
    chart.categories.push_back(str(r->gpus, ": ", r->layout));
    s.values.push_back(r->most > r->least ? ChartValue{r->ms_per_step, r->least, r->most}
                                          : ChartValue{r->ms_per_step});
  }
  chart.series = {s};
  return chart;
}

// Speed-up over one GPU of every method alone, and of the fastest hybrid.
std::optional<Chart> scaling_chart(const std::string& hardware, const std::vector<const FamilyRow*>& rows,
                                   int side) {
  const FamilyRow* one = fastest(rows, 1);
  if (!one) return std::nullopt;
  Chart chart{.id = str("scaling-", slug(hardware), "-", side),
              .title = str("Scalability, ", side, " px, ", hardware),
              .kind = ChartKind::kLines,
              .categories_title = "GPUs",
              .values_title = "times one GPU"};
  std::vector<int> counts;
  for (const int n : kChartedCounts) {
    if (fastest(rows, n)) counts.push_back(n), chart.categories.push_back(std::to_string(n));
  }
  if (counts.size() < 2) return std::nullopt;
  for (const auto* method : {"ulysses", "ring", "kv_gather", "pipefusion", "cfg", "tensor", "hybrid"}) {
    ChartSeries s{method, one->source, {}};
    for (const int n : counts) {
      const auto* r = n == 1 ? one : fastest(rows, n, method);
      s.values.push_back(r ? std::optional(ChartValue{one->ms_per_step / r->ms_per_step}) : std::nullopt);
    }
    if (std::count_if(s.values.begin(), s.values.end(), [](const auto& v) { return v.has_value(); }) > 1)
      chart.series.push_back(std::move(s));
  }
  return chart;
}

std::string order_of(std::vector<const FamilyRow*> rows, int gpus) {
  std::erase_if(rows, [&](const FamilyRow* r) { return r->gpus != gpus; });
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto* a, const auto* b) { return a->ms_per_step < b->ms_per_step; });
  std::string out;
  for (const auto* r : rows) out += (out.empty() ? "" : "; ") + r->layout;
  return out;
}

Table order_table(const FamilyQuery& q, const std::string& hardware) {
  Table table{"order-" + slug(hardware),
              "Fastest first, beside the reported ranking",
              {"size", "GPUs", "order here"},
              {}};
  const bool is_reported = q.is_reported && hardware == reported_machines().front().title;
  if (is_reported) {
    for (const auto& r : reported_rankings()) table.columns.push_back(str("reported ranking, ", r.name));
  }
  for (const int side : {kPlain, kLarge}) {
    const auto rows = rows_on(q, hardware, side);
    for (const int n : {2, 4, 8}) {
      const auto order = order_of(rows, n);
      if (order.empty()) continue;
      std::vector<Cell> cells{{str(side, " px"), Basis::kAsked},
                              {std::to_string(n), Basis::kAsked},
                              {order, rows.front()->source}};
      for (const auto& r : is_reported ? reported_rankings() : std::span<const ReportedRanking>()) {
        const bool is_of_size = r.name.find(std::to_string(side)) != r.name.npos;
        const auto layout = n == 2 ? r.gpus_2 : n == 4 ? r.gpus_4 : r.gpus_8;
        cells.push_back(is_of_size && !layout.empty() ? Cell{std::string(layout), Basis::kCited} : Cell{});
      }
      table.rows.push_back(cells);
    }
  }
  return table;
}

Table numbers_table(const std::string& hardware, const std::vector<const FamilyRow*>& rows) {
  Table table{"latency-" + slug(hardware),
              "Latency",
              {"model", "size", "GPUs", "layout", "ms per step", "least", "most", "times one GPU", "from"},
              {}};
  for (const auto* r : rows) {
    const auto same = [&](const FamilyRow* other) {
      return other->gpus == 1 && other->side == r->side && other->model == r->model;
    };
    const auto one = std::find_if(rows.begin(), rows.end(), same);
    const auto run = [&](double value) { return value > 0 ? number_cell(*r, value) : Cell{}; };
    table.rows.push_back({{r->model, Basis::kAsked},
                          {str(r->side, " px"), Basis::kAsked},
                          {std::to_string(r->gpus), Basis::kAsked},
                          {r->layout, Basis::kAsked},
                          number_cell(*r, r->ms_per_step),
                          run(r->least),
                          run(r->most),
                          one == rows.end() ? Cell{} : number_cell(*r, (*one)->ms_per_step / r->ms_per_step),
                          {r->from, r->source}});
  }
  return table;
}

PageSection hardware_section(const FamilyQuery& q, const std::string& hardware) {
  PageSection out{.id = slug(hardware), .title = hardware};
  const auto rows = rows_on(q, hardware, 0);
  for (const auto& m : reported_machines()) {
    if (!q.is_reported || m.title != hardware) continue;
    out.lines.push_back(
        {str("Not measured here, for want of the hardware. Times are modelled by the planner for ", m.preset,
             " GPUs, whose peaks are cited; the report's own times stand in pictures and are not read off "
             "them."),
         Basis::kModelled});
    for (const auto& sentence : m.says) {
      if (!sentence.empty()) out.lines.push_back({str("The report: ", sentence), Basis::kCited});
    }
  }
  const auto plain = rows_on(q, hardware, kPlain);
  if (!plain.empty()) out.charts.push_back(latency_chart(hardware, plain));
  const bool is_first = q.is_reported && hardware == reported_machines().front().title;
  const bool is_measured = !rows.empty() && rows.front()->source == Basis::kMeasured;
  for (const int side : {kPlain, kLarge}) {
    auto chart =
        is_first || is_measured ? scaling_chart(hardware, rows_on(q, hardware, side), side) : std::nullopt;
    if (chart) out.charts.push_back(std::move(*chart));
  }
  if (auto order = order_table(q, hardware); !order.rows.empty()) out.tables.push_back(std::move(order));
  if (!rows.empty()) out.tables.push_back(numbers_table(hardware, rows));
  if (rows.empty()) out.lines.push_back({"There are no numbers of it."});
  return out;
}

PageSection reading_section() {
  return {.id = "reading",
          .title = "Reading the report",
          .lines = {{"The two lists of fastest layouts for the same machine differ, on 2 and on 4 GPUs; the "
                     "report does not say "
                     "why, so both are shown as the reported ranking and neither is taken for the truth.",
                     Basis::kCited},
                    {"The report explains the shrinking gap between ring and Ulysses by a reduced ratio of "
                     "computation to "
                     "communication. The ratio rises with the number of tokens: attention grows with its "
                     "square, messages "
                     "with the number itself; that is why a ring hides more of its messages at larger sizes.",
                     Basis::kText},
                    {"What torch.compile gains there is not what CUDA graphs gain here."}}};
}

}  // namespace

std::vector<FamilyRow> family_rows(const Json& result, const std::string& model, const std::string& where) {
  std::vector<FamilyRow> out;
  const auto add = [&](const Json& row, const Json& head, const std::string& device) {
    const auto name = head.value("model", "");
    const auto& ms = row.contains("ms_per_step") ? row["ms_per_step"] : Json();
    if (!lower(name).starts_with(lower(model)) || !ms.is_object()) return;
    const auto& shape = row.contains("layout") ? row : head;
    if (number(shape, "height") != number(shape, "width") || number(shape, "batch", 1) != 1) return;
    out.push_back({.hardware = device.substr(0, device.find(" (")),
                   .model = name.substr(0, name.find(" (")),
                   .layout = shape.value("layout", ""),
                   .gpus = static_cast<int>(number(shape, shape.contains("gpus") ? "gpus" : "ranks", 1)),
                   .side = static_cast<int>(number(shape, "height")),
                   .steps = static_cast<int>(number(head, "steps")),
                   .ms_per_step = number(ms, "median"),
                   .least = number(ms, "min"),
                   .most = number(ms, "max"),
                   .source = Basis::kMeasured,
                   .from = where});
  };
  const Json rows = result.value("rows", Json::array());  // a list, or objects by name
  for (const auto& row : rows) {
    if (row.value("tier", "exact") != "exact" || row.value("attention_dtype", "auto") != "auto" ||
        row.contains("problem"))
      continue;
    if (result.value("schema", "") != kSchema) {
      add(row, row, row.value("device", ""));
    } else if (is_measured(row)) {
      Json head = result.at("asked");
      head.update(row.at("asked"));
      head["model"] = result.at("asked").value("model", "");
      add(row.at("measured"), head, result.at("machine").value("device", ""));
    }
  }
  return out;
}

void add_measured(FamilyQuery& query, std::vector<FamilyRow> rows) {
  std::map<std::string, std::set<std::string>> models, files;
  for (const auto& r : rows) models[r.hardware].insert(r.model), files[r.hardware].insert(r.from);
  std::vector<std::string> sections;
  for (auto& r : rows) {
    const auto machine = r.hardware;
    if (models[machine].size() > 1) r.hardware += ", " + r.model;
    if (files[machine].size() > 1) r.hardware += ", " + r.from;
    if (std::find(sections.begin(), sections.end(), r.hardware) == sections.end())
      sections.push_back(r.hardware);
    query.rows.push_back(std::move(r));
  }
  query.hardware.insert(query.hardware.begin(), sections.begin(), sections.end());
}

Document family_page(const FamilyQuery& query) {
  Document out{.title = "Performance of " + query.family, .lead = {}, .sections = {}};
  out.lead.push_back(
      {"Measured numbers are bold and come from the files that are named beside them; modelled ones are "
       "italic" +
       (query.is_reported ? str("; cited ones are grey, with their source: ", kReportSource)
                          : std::string()) +
       "."});
  for (const auto& hardware : query.hardware) out.sections.push_back(hardware_section(query, hardware));
  if (query.is_reported) out.sections.push_back(reading_section());
  return out;
}

}  // namespace atelier::bench
