#include "bench/page_parts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/result.h"

namespace atelier::bench {

Cell asked(const std::string& text) {
  return {text, Basis::kAsked};
}

Cell asked(double value) {
  return {number_text(value), Basis::kAsked};
}

Cell measured_cell(std::optional<double> value, double times, const char* unit) {
  return value ? Cell{number_text(*value * times) + unit, Basis::kMeasured} : Cell{};
}

Cell modelled_cell(std::optional<double> value, double times, const char* unit) {
  return value ? Cell{number_text(*value * times) + unit, Basis::kModelled} : Cell{};
}

Cell cell_of(const Json& row, const char* what, double times) {
  if (const auto value = measured(row, what)) return measured_cell(value, times);
  if (const auto value = modelled(row, what)) return modelled_cell(value, times);
  return {is_measured(row) ? "" : row.value("status", "")};
}

Cell difference_cell(const Json& result, const Json& row) {
  const Json* q = quality_of(result, row);
  if (!q || !q->contains("most_levels")) return {};
  const double levels = number(*q, "most_levels");
  return {levels == 0 ? "identical" : str(levels, levels == 1 ? " level" : " levels"), Basis::kMeasured};
}

std::optional<ChartValue> value_of(const Json& row, const char* what, double times) {
  const auto y = measured(row, what);
  if (!y) return std::nullopt;
  ChartValue out{*y * times};
  const auto& series = row.at("measured").at(what);
  if (series.is_object() && number(series, "count") > 1)
    out.least = number(series, "min") * times, out.most = number(series, "max") * times;
  return out;
}

std::optional<ChartValue> modelled_value(const Json& row, const char* what, double times) {
  const auto y = modelled(row, what);
  return y ? std::optional(ChartValue{*y * times}) : std::nullopt;
}

Chart without_empty(Chart chart) {
  std::erase_if(chart.series, [](const ChartSeries& s) {
    return std::none_of(s.values.begin(), s.values.end(), [](const auto& v) { return v.has_value(); });
  });
  return chart;
}

std::string layout_name(const Json& row) {
  return str(gpus_of(row), ": ", layout_of(row));
}

}  // namespace atelier::bench
