// A value over categories at equal distances, such as 1, 2, 4 and 8 ranks.
#include <algorithm>

#include "bench/drawing.h"

namespace atelier::bench {
namespace {

constexpr double kPlotHeight = 230;
constexpr int kLineTicks = 5;

struct LinePlot {
  double left, right, top, bottom, most;
  size_t categories;
  double x(size_t i) const {
    return left + (right - left) * (static_cast<double>(i) + 0.5) / static_cast<double>(categories);
  }
  double y(double value) const { return bottom - (bottom - top) * value / most; }
};

double highest_value(const Chart& chart) {
  double most = chart.most.value_or(0);
  for (const auto& s : chart.series) {
    for (const auto& v : s.values) {
      if (v) most = std::max({most, v->y, v->most.value_or(v->y)});
    }
  }
  return most;
}

void draw_series(Drawing& d, const LinePlot& plot, const ChartSeries& s) {
  std::vector<std::pair<double, double>> points;
  for (size_t i = 0; i < s.values.size(); ++i) {
    if (s.values[i]) points.emplace_back(plot.x(i), plot.y(s.values[i]->y));
  }
  if (points.size() > 1) d.path(points);
  for (const auto& [x, y] : points) d.circle(x, y);
  for (size_t i = 0; i < s.values.size(); ++i) {
    const auto& v = s.values[i];
    if (v && v->least && v->most)
      d.line(plot.x(i), plot.y(*v->least), plot.x(i), plot.y(*v->most), "whisker");
  }
}

}  // namespace

double draw_lines(Drawing& d, const Chart& chart, double top) {
  const auto marks = ticks(highest_value(chart), kLineTicks);
  double label = 0;
  for (const double mark : marks) label = std::max(label, width_of(number_text(mark)));
  const double first = top + kLineHeight;  // the axis' title stands above it
  const LinePlot plot{kMargin + label + 8, kWidth - kMargin, first,
                      first + kPlotHeight, marks.back(),     chart.categories.size()};
  d.text(kMargin, top + 4, "start", "soft", chart.values_title);
  for (const double mark : marks) {
    d.line(plot.left, plot.y(mark), plot.right, plot.y(mark), "grid");
    d.text(plot.left - 8, plot.y(mark) + 4, "end", "soft", number_text(mark));
  }
  for (size_t i = 0; i < chart.categories.size(); ++i)
    d.text(plot.x(i), plot.bottom + kLineHeight, "middle", "", chart.categories[i]);
  d.text((plot.left + plot.right) / 2, plot.bottom + 2 * kLineHeight, "middle", "soft",
         chart.categories_title);
  for (size_t i = chart.series.size(); i-- > 0;) {  // the first ones, what was measured, lie on top
    d.begin(i, chart.series[i].source);
    draw_series(d, plot, chart.series[i]);
    d.end();
  }
  return plot.bottom + 2 * kLineHeight + kMargin;
}

}  // namespace atelier::bench
