// Of a protocol's page: larger pictures, batches, and many pictures.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/checks.h"
#include "bench/cited.h"
#include "bench/page_parts.h"
#include "bench/result.h"

namespace atelier::bench {
namespace {

std::string size_of(const Json& row) {
  const auto& a = row.at("asked");
  return str(number(a, "width"), "x", number(a, "height"));
}

struct Mode {
  const char* name;  // as Measurement::mode
  const char* title;
};
constexpr Mode kModes[] = {
    {"single", "one GPU"}, {"dataparallel", "batches are split"}, {"multi", "a picture per GPU"}};

std::string title_of(const std::string& mode) {
  for (const auto& m : kModes) {
    if (mode == m.name) return m.title;
  }
  return mode;
}

const Cited* cited_for(int gpus, const std::string& mode) {
  for (const auto& f : cited_figures()) {
    if (f.about == About::kThroughput && f.gpus == gpus && (f.mode == mode || f.mode.empty())) return &f;
  }
  return nullptr;
}

double all_bytes(const Json& row) {
  double sum = 0;
  for (const double b : peaks(row)) sum += b;
  return sum;
}

Chart factor_chart(const Json& result, const std::vector<const Json*>& rows) {
  Chart chart{
      .id = "throughput", .title = "Pictures per second, times one GPU's", .values_title = "times one GPU"};
  if (!is_on_gpus(result))
    chart.title = "Pictures per second, times one rank's", chart.values_title = "times one rank";
  ChartSeries ours{"this run", Basis::kMeasured, {}}, guide{"SDXL guide, its hardware", Basis::kCited, {}};
  for (const auto* row : rows) {
    const auto mode = row->at("asked").value("mode", "");
    if (mode == "single") continue;
    const auto factor = speed_up(result, *row, "pictures_per_second");
    const Cited* f = cited_for(gpus_of(*row), mode);
    if (!factor && !(f && f->number)) continue;
    chart.categories.push_back(str(gpus_of(*row), ": ", title_of(mode)));
    ours.values.push_back(factor ? std::optional(ChartValue{*factor}) : std::nullopt);
    guide.values.push_back(f && f->number ? std::optional(ChartValue{*f->number}) : std::nullopt);
  }
  chart.series = {ours, guide};
  return without_empty(chart);
}

}  // namespace

PageSection sizes_section(const Json& result) {
  PageSection out{.id = "sizes", .title = "Sizes"};
  Chart chart{.id = "sizes",
              .title = "One picture of each size, by phase",
              .kind = ChartKind::kStacks,
              .values_title = "s"};
  constexpr std::pair<const char*, const char*> kPhases[] = {
      {"encode_s", "encoding the text"}, {"denoise_s", "denoising"}, {"decode_s", "decoding"}};
  for (const auto& phase : kPhases) chart.series.push_back({phase.second, Basis::kMeasured, {}});
  Table table{"sizes",
              "From small to large",
              {"size", "layout", "ms per step", "denoising, s", "decoding, s", "picture, s",
               "most memory of a rank, GiB"},
              {}};
  auto rows = rows_for(result, Topic::kSizes);
  std::stable_sort(rows.begin(), rows.end(), [](const Json* a, const Json* b) {
    return number(a->at("asked"), "height") < number(b->at("asked"), "height");
  });
  for (const auto* row : rows) {
    if (is_measured(*row)) {
      chart.categories.push_back(size_of(*row) + ", " + layout_of(*row));
      for (size_t i = 0; i < chart.series.size(); ++i) {
        auto value = value_of(*row, kPhases[i].first);
        chart.series[i].values.push_back(value);
      }
    }
    const auto held = peaks(*row);
    table.rows.push_back(
        {asked(size_of(*row)), asked(layout_of(*row)), cell_of(*row, "ms_per_step"),
         cell_of(*row, "denoise_s"), cell_of(*row, "decode_s"), cell_of(*row, "picture_s"),
         held.empty() ? Cell{} : measured_cell(*std::max_element(held.begin(), held.end()), 1 / kGiB)});
  }
  if (!chart.categories.empty()) out.charts.push_back(without_empty(chart));
  out.tables.push_back(table);
  return out;
}

PageSection batches_section(const Json& result) {
  PageSection out{.id = "batches", .title = "Batches"};
  auto rows = rows_for(result, Topic::kBatches);
  const Json* one = baseline(result);
  if (one && std::find(rows.begin(), rows.end(), one) == rows.end()) rows.insert(rows.begin(), one);
  Chart chart{.id = "batches", .title = "Several prompts at once", .values_title = "pictures per second"};
  ChartSeries ours{"pictures per second", Basis::kMeasured, {}};
  Table table{"batches",
              "Several prompts at once on one GPU",
              {"batch", "pictures per second", "batch, s", "ms per step", "most memory, GiB"},
              {}};
  for (const auto* row : rows) {
    const double batch = number(row->at("asked"), "batch");
    if (is_measured(*row)) {
      chart.categories.push_back("batch of " + number_text(batch));
      ours.values.push_back(value_of(*row, "pictures_per_second"));
    }
    const auto held = peaks(*row);
    table.rows.push_back({asked(batch), cell_of(*row, "pictures_per_second"), cell_of(*row, "picture_s"),
                          cell_of(*row, "ms_per_step"),
                          held.empty() ? Cell{} : measured_cell(held[0], 1 / kGiB)});
  }
  chart.series = {ours};
  if (!chart.categories.empty()) out.charts.push_back(chart);
  out.tables.push_back(table);
  return out;
}

PageSection throughput_section(const Json& result) {
  PageSection out{.id = "throughput", .title = "Throughput"};
  const auto rows = rows_for(result, Topic::kThroughput);
  Table table{"throughput",
              "Modes of the SDXL guide: drawing, encoding and storing files included",
              {"mode", "GPUs", "layout", "pictures per second", "times one GPU", "ideal", "storing one, s",
               "memory of all, GiB", "per GPU, GiB", "reference", "its memory and complexity"},
              {}};
  for (const auto* row : rows) {
    const auto mode = row->at("asked").value("mode", "");
    const int gpus = gpus_of(*row);
    const auto held = peaks(*row);
    const Cited* f = cited_for(gpus, mode);
    const bool has_bytes = !held.empty();
    table.rows.push_back({{title_of(mode)},
                          asked(gpus),
                          asked(layout_of(*row)),
                          cell_of(*row, "pictures_per_second"),
                          measured_cell(speed_up(result, *row, "pictures_per_second")),
                          asked(gpus),
                          measured_cell(measured(*row, "store_s")),
                          has_bytes ? measured_cell(all_bytes(*row), 1 / kGiB) : Cell{},
                          has_bytes ? measured_cell(all_bytes(*row) / gpus, 1 / kGiB) : Cell{},
                          f ? Cell{std::string(f->value), Basis::kCited} : Cell{},
                          f ? Cell{std::string(f->remark), Basis::kCited} : Cell{}});
  }
  auto chart = factor_chart(result, rows);
  if (!chart.categories.empty() && !chart.series.empty()) out.charts.push_back(std::move(chart));
  out.tables.push_back(table);
  out.lines.push_back({"Bound by " + bound_by(result) + ".", Basis::kMeasured});
  out.lines.push_back(
      {"The guide expects 1.6 to 1.9 times on 2 GPUs, 2.5 to 3.8 on 4 and 4.0 to 6.0 on 8, and says "
       "elsewhere "
       "that separate processes scale linearly; its hardware is not said.",
       Basis::kCited});
  return out;
}

}  // namespace atelier::bench
