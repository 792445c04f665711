// What the sections of a protocol's page are made of.
#pragma once
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "bench/document.h"

namespace atelier::bench {

Cell asked(const std::string& text);
Cell asked(double value);
Cell measured_cell(std::optional<double> value, double times = 1, const char* unit = "");
Cell modelled_cell(std::optional<double> value, double times = 1, const char* unit = "");
// Of a row: measured; else modelled, where the GPUs are not here; else why there is no number.
Cell cell_of(const Json& row, const char* what, double times = 1);
// The picture's difference from one GPU's, "0 levels"; empty text where there is nothing to compare.
Cell difference_cell(const Json& result, const Json& row);
// As a value of a chart, with the least and the most of a series.
std::optional<ChartValue> value_of(const Json& row, const char* what, double times = 1);
std::optional<ChartValue> modelled_value(const Json& row, const char* what, double times = 1);
// Drops series that have no value at all.
Chart without_empty(Chart chart);
std::string layout_name(const Json& row);  // "4: ulysses=4"

PageSection checks_section(const Json& result);
PageSection baseline_section(const Json& result);
PageSection scaling_section(const Json& result);
PageSection strategies_section(const Json& result);
PageSection memory_section(const Json& result);
PageSection traffic_section(const Json& result);
PageSection quality_section(const Json& result, const std::map<std::string, std::string>& pictures);
PageSection sizes_section(const Json& result);
PageSection batches_section(const Json& result);
PageSection throughput_section(const Json& result);
PageSection cited_section();
PageSection machine_section(const Json& result);

inline constexpr double kGiB = 1024.0 * 1024 * 1024;

}  // namespace atelier::bench
