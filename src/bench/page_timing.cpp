// Of a protocol's page: criteria, one GPU, scaling, strategies.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/checks.h"
#include "bench/cited.h"
#include "bench/page_parts.h"
#include "bench/result.h"

namespace atelier::bench {
namespace {

// "2.6x (4x H100)": what documents say of one picture on so many GPUs.
Cell cited_cell(int gpus) {
  std::string text;
  for (const auto& f : cited_figures()) {
    if (f.about != About::kSpeedUp || f.gpus != gpus) continue;
    text += str(text.empty() ? "" : "; ", f.value, ", ", f.hardware, ", ", f.model);
  }
  return text.empty() ? Cell{} : Cell{text, Basis::kCited};
}

std::optional<double> modelled_speed_up(const Json& result, const Json& row, const char* what) {
  const Json* one = baseline(result);
  const auto its = one ? modelled(*one, what) : std::nullopt, mine = modelled(row, what);
  return its && mine && *mine > 0 ? std::optional(*its / *mine) : std::nullopt;
}

std::optional<ChartValue> chart_value(std::optional<double> y) {
  return y ? std::optional(ChartValue{*y}) : std::nullopt;
}

Chart scaling_chart(const Json& result, const std::vector<const Json*>& rows, bool is_efficiency) {
  ChartSeries steps{"denoising", Basis::kMeasured, {}}, whole{"prompt to picture", Basis::kMeasured, {}},
      model{"denoising, planner", Basis::kModelled, {}}, ideal{"ideal", Basis::kAsked, {}};
  Chart chart{
      .id = is_efficiency ? "efficiency" : "speedup",
      .title = is_efficiency ? "Scaling efficiency of one picture" : "Speed-up of one picture over one GPU",
      .kind = ChartKind::kLines,
      .categories_title = is_on_gpus(result) ? "GPUs" : "ranks on the CPU",
      .values_title = is_efficiency ? "% of the ideal" : "times one GPU"};
  if (!is_on_gpus(result) && !is_efficiency)
    chart.title = "Speed-up of one picture over one rank", chart.values_title = "times one rank";
  for (const auto* row : rows) {
    const double n = gpus_of(*row), scale = is_efficiency ? 100 / n : 1;
    const auto scaled = [&](std::optional<double> v) {
      return chart_value(v ? std::optional(*v * scale) : std::nullopt);
    };
    chart.categories.push_back(str(n));
    steps.values.push_back(scaled(speed_up(result, *row, "ms_per_step")));
    whole.values.push_back(scaled(speed_up(result, *row, "picture_s")));
    model.values.push_back(scaled(modelled_speed_up(result, *row, "ms_per_step")));
    ideal.values.push_back(ChartValue{n * scale});
  }
  chart.series = {steps, whole, model, ideal};
  return without_empty(chart);
}

const std::vector<std::string> kTimes{"ms per step", "p90", "picture, s", "denoising, s"};

void add_times(std::vector<Cell>& cells, const Json& row) {
  cells.push_back(cell_of(row, "ms_per_step"));
  const bool has_series = measured(row, "ms_per_step").has_value();
  cells.push_back(has_series ? measured_cell(number(row["measured"]["ms_per_step"], "p90")) : Cell{});
  cells.push_back(cell_of(row, "picture_s"));
  cells.push_back(measured_cell(measured(row, "denoise_s")));
}

std::vector<std::string> columns(std::initializer_list<const char*> first,
                                 std::initializer_list<const char*> last) {
  std::vector<std::string> out(first.begin(), first.end());
  out.insert(out.end(), kTimes.begin(), kTimes.end());
  out.insert(out.end(), last.begin(), last.end());
  return out;
}

}  // namespace

PageSection checks_section(const Json& result) {
  Table table{"checks", "The test plan's seven criteria", {"criterion", "verdict", "found", "held to"}, {}};
  for (const auto& c : success_checks(result)) {
    table.rows.push_back(
        {{c.what}, {std::string(name_of(c.verdict))}, {c.found, Basis::kMeasured}, asked(c.threshold)});
  }
  return {.id = "criteria", .title = "Success criteria", .lines = {}, .tables = {table}};
}

PageSection baseline_section(const Json& result) {
  PageSection out{.id = "baseline", .title = "One GPU"};
  if (!is_on_gpus(result)) out.title = "One rank";
  const Json* row = baseline(result);
  if (!row) {
    out.lines.push_back({"Not measured yet: there is no speed-up without it."});
    return out;
  }
  Table table{"baseline",
              "Every run of one picture, the first one apart",
              {"what", "unit", "first", "median", "p90", "p99", "least", "most", "runs"},
              {}};
  constexpr std::pair<const char*, const char*> kSeries[] = {{"picture_s", "s, prompt to pixels"},
                                                             {"encode_s", "s"},
                                                             {"denoise_s", "s"},
                                                             {"decode_s", "s"},
                                                             {"store_s", "s, encoding and writing the file"},
                                                             {"ms_per_step", "ms"}};
  for (const auto& [key, unit] : kSeries) {
    const auto& m = row->at("measured");
    if (!m.contains(key) || !m[key].is_object()) continue;
    std::vector<Cell> cells{{key}, {unit}};
    for (const char* which : {"first", "median", "p90", "p99", "min", "max", "count"})
      cells.push_back(m[key].contains(which) ? measured_cell(number(m[key], which)) : Cell{});
    table.rows.push_back(cells);
  }
  out.tables.push_back(table);
  const double runs = number(row->at("measured").value("picture_s", Json::object()), "count");
  constexpr double kEnough = 20;
  if (runs < kEnough)
    out.lines.push_back({str("Quantiles of fewer than ", kEnough, " runs are rough."), Basis::kAsked});
  return out;
}

PageSection scaling_section(const Json& result) {
  PageSection out{.id = "scaling", .title = "Scaling"};
  const auto rows = rows_for(result, Topic::kScaling);
  if (baseline(result)) out.charts = {scaling_chart(result, rows, false), scaling_chart(result, rows, true)};
  Table table{
      "scaling",
      "One picture on more and more GPUs",
      columns({"GPUs", "layout"}, {"speed-up, denoising", "speed-up, picture", "ideal", "efficiency, %",
                                   "differs from one GPU by", "reference (its hardware)"}),
      {}};
  for (const auto* row : rows) {
    std::vector<Cell> cells{asked(gpus_of(*row)), asked(layout_of(*row))};
    add_times(cells, *row);
    const auto steps = speed_up(result, *row, "ms_per_step"),
               model = modelled_speed_up(result, *row, "ms_per_step");
    const double share = 100.0 / gpus_of(*row);
    cells.push_back(steps ? measured_cell(steps) : modelled_cell(model));
    cells.push_back(measured_cell(speed_up(result, *row, "picture_s")));
    cells.push_back(asked(gpus_of(*row)));
    cells.push_back(steps ? measured_cell(steps, share) : modelled_cell(model, share));
    cells.push_back(difference_cell(result, *row));
    cells.push_back(cited_cell(gpus_of(*row)));
    table.rows.push_back(cells);
  }
  out.tables.push_back(table);
  if (!is_on_gpus(result))
    out.lines.push_back(
        {"Ranks are processes on one CPU and share its cores: their speed says nothing about GPUs."});
  return out;
}

PageSection strategies_section(const Json& result) {
  PageSection out{.id = "strategies", .title = "Strategies"};
  auto rows = rows_for(result, Topic::kStrategies);
  if (const Json* one = baseline(result)) rows.insert(rows.begin(), one);
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Json* x, const Json* y) { return gpus_of(*x) < gpus_of(*y); });
  Chart chart{.id = "strategies",
              .title = "Time of a step, median with least and most of the runs",
              .values_title = "ms per step"};
  ChartSeries ours{"ms per step", Basis::kMeasured, {}}, model{"planner", Basis::kModelled, {}};
  Table table{"strategies",
              "The same seed and steps under every layout",
              columns({"layout", "GPUs", "league"}, {"speed-up, denoising", "differs from one GPU by"}),
              {}};
  for (const auto* row : rows) {
    if (is_measured(*row) || modelled(*row, "ms_per_step")) {
      chart.categories.push_back(layout_name(*row));
      ours.values.push_back(value_of(*row, "ms_per_step"));
      model.values.push_back(modelled_value(*row, "ms_per_step"));
    }
    std::vector<Cell> cells{asked(layout_of(*row)), asked(gpus_of(*row)), {row->value("league", "")}};
    add_times(cells, *row);
    cells.push_back(measured_cell(speed_up(result, *row, "ms_per_step")));
    cells.push_back(difference_cell(result, *row));
    table.rows.push_back(cells);
  }
  chart.series = {ours, model};
  if (!chart.categories.empty()) out.charts.push_back(without_empty(chart));
  out.tables.push_back(table);
  return out;
}

}  // namespace atelier::bench
