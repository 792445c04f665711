// Lying bars, beside each other or end to end; long names of categories stand on their left.
#include <algorithm>

#include "bench/drawing.h"

namespace atelier::bench {
namespace {

constexpr double kBar = 16, kBetween = 3, kGroup = 9, kMostLabel = 250, kValueRoom = 60;
constexpr int kBarTicks = 6;

struct BarPlot {
  double left, right, most;
  double x(double value) const { return left + (right - left) * value / most; }
};

bool is_stacked(const Chart& chart) {
  return chart.kind == ChartKind::kStacks;
}

double total_of(const Chart& chart, size_t category) {
  double total = 0;
  for (const auto& s : chart.series) {
    if (s.values[category]) total += s.values[category]->y;
  }
  return total;
}

size_t values_at(const Chart& chart, size_t category) {
  size_t count = 0;
  for (const auto& s : chart.series) count += s.values[category].has_value();
  return count;
}

double longest_bar(const Chart& chart) {
  double most = chart.most.value_or(0);
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    if (is_stacked(chart)) most = std::max(most, total_of(chart, c));
    for (const auto& s : chart.series) {
      if (!is_stacked(chart) && s.values[c])
        most = std::max({most, s.values[c]->y, s.values[c]->most.value_or(0)});
    }
  }
  return most;
}

void draw_stack(Drawing& d, const Chart& chart, const BarPlot& plot, size_t category, double y) {
  double from = 0;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const auto& v = chart.series[i].values[category];
    if (!v || v->y <= 0) continue;
    d.begin(i, chart.series[i].source);
    d.rect(plot.x(from), y, plot.x(from + v->y) - plot.x(from), kBar);
    d.end();
    from += v->y;
  }
  d.text(plot.x(from) + 6, y + kBar - 4, "start", "", number_text(from));
}

// Returns where the next category begins.
double draw_group(Drawing& d, const Chart& chart, const BarPlot& plot, size_t category, double y) {
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const auto& v = chart.series[i].values[category];
    if (!v) continue;
    d.begin(i, chart.series[i].source);
    d.rect(plot.left, y, plot.x(v->y) - plot.left, kBar);
    d.end();
    const double middle = y + kBar / 2;
    double end = v->y;
    if (v->least && v->most && *v->most > *v->least) {
      d.line(plot.x(*v->least), middle, plot.x(*v->most), middle, "whisker");
      end = std::max(end, *v->most);
    }
    d.text(plot.x(end) + 6, y + kBar - 4, "start", "", number_text(v->y));
    y += kBar + kBetween;
  }
  return y;
}

std::string cut(const std::string& label) {
  const auto letters = static_cast<size_t>(kMostLabel / kLetter);
  return label.size() <= letters ? label : label.substr(0, letters - 3) + "...";
}

}  // namespace

double draw_bars(Drawing& d, const Chart& chart, double top) {
  double label = 0;
  for (const auto& c : chart.categories) label = std::max(label, width_of(cut(c)));
  const auto marks = ticks(longest_bar(chart), kBarTicks);
  const BarPlot plot{kMargin + label + 8, kWidth - kValueRoom, marks.back()};
  double bottom = top + kGroup;
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    const size_t bars = is_stacked(chart) ? 1 : std::max<size_t>(1, values_at(chart, c));
    bottom += static_cast<double>(bars) * (kBar + kBetween) + kGroup;
  }
  for (const double mark : marks) {
    d.line(plot.x(mark), top, plot.x(mark), bottom, "grid");
    d.text(plot.x(mark), bottom + kLineHeight - 3, "middle", "soft", number_text(mark));
  }
  d.text((plot.left + plot.right) / 2, bottom + 2 * kLineHeight, "middle", "soft", chart.values_title);
  double y = top + kGroup;
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    const double begin = y;
    if (values_at(chart, c) == 0) {
      d.text(plot.left + 6, y + kBar - 4, "start", "soft", "not measured here");
      y += kBar + kBetween;
    } else if (is_stacked(chart)) {
      draw_stack(d, chart, plot, c, y);
      y += kBar + kBetween;
    } else {
      y = draw_group(d, chart, plot, c, y);
    }
    d.text(plot.left - 8, (begin + y - kBetween) / 2 + 4, "end", "", cut(chart.categories[c]));
    y += kGroup;
  }
  return bottom + 2 * kLineHeight + kMargin;
}

}  // namespace atelier::bench
