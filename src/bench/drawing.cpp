#include "bench/drawing.h"

#include <algorithm>
#include <cmath>

#include "bench/svg.h"

namespace atelier::bench {
namespace {

// One decimal at most.
double tenth(double value) {
  return std::round(value * 10) / 10;
}

}  // namespace

double width_of(const std::string& text) {
  return kLetter * static_cast<double>(text.size());
}

std::vector<double> ticks(double most, int count) {
  if (!(most > 0)) most = 1;
  const double power = std::pow(10, std::floor(std::log10(most / count)));
  double step = power;
  for (const double factor : {1., 2., 2.5, 5., 10.}) {
    step = factor * power;
    if (step * count >= most) break;
  }
  std::vector<double> out;
  for (int i = 0;; ++i) {
    out.push_back(step * i);
    if (step * i >= most * (1 - 1e-9)) return out;
  }
}

void Drawing::line(double x1, double y1, double x2, double y2, const char* kind) {
  out_ << "<line class=\"" << kind << "\" x1=\"" << tenth(x1) << "\" y1=\"" << tenth(y1) << "\" x2=\""
       << tenth(x2) << "\" y2=\"" << tenth(y2) << "\"/>";
}

void Drawing::rect(double x, double y, double width, double height) {
  out_ << "<rect x=\"" << tenth(x) << "\" y=\"" << tenth(y) << "\" width=\"" << tenth(std::max(width, 1.))
       << "\" height=\"" << tenth(height) << "\"/>";
}

void Drawing::circle(double x, double y) {
  out_ << "<circle cx=\"" << tenth(x) << "\" cy=\"" << tenth(y) << "\" r=\"4\"/>";
}

void Drawing::path(const std::vector<std::pair<double, double>>& points) {
  out_ << "<path d=\"";
  for (size_t i = 0; i < points.size(); ++i)
    out_ << (i == 0 ? "M" : "L") << tenth(points[i].first) << " " << tenth(points[i].second);
  out_ << "\"/>";
}

void Drawing::text(double x, double y, const char* anchor, const char* kind, const std::string& text) {
  out_ << "<text x=\"" << tenth(x) << "\" y=\"" << tenth(y) << "\"";
  if (std::string(anchor) != "start") out_ << " text-anchor=\"" << anchor << "\"";
  if (*kind) out_ << " class=\"" << kind << "\"";
  out_ << ">" << escaped(text) << "</text>";
}

void Drawing::begin(size_t series, Basis source) {
  out_ << "<g class=\"s" << series % 7 << " " << name_of(source) << "\">";
}

void Drawing::end() {
  out_ << "</g>";
}

double draw_head(Drawing& d, const Chart& chart) {
  constexpr double kTitleLine = 20, kSwatch = 12, kGap = 18;
  double y = kTitleLine;
  d.text(kMargin, y, "start", "title", chart.title);
  double x = kMargin;
  y += kLineHeight + 2;
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const auto& s = chart.series[i];
    const bool is_found = s.source != Basis::kAsked;  // an ideal is nobody's result
    const std::string label = s.name + (is_found ? ", " + std::string(name_of(s.source)) : "");
    const double width = kSwatch + 6 + width_of(label) + kGap;
    if (x > kMargin && x + width > kWidth) x = kMargin, y += kLineHeight;
    d.begin(i, s.source);
    if (chart.kind == ChartKind::kLines) {
      d.path({{x, y - 4}, {x + kSwatch, y - 4}});
    } else {
      d.rect(x, y - 10, kSwatch, kSwatch);
    }
    d.end();
    d.text(x + kSwatch + 6, y, "start", "", label);
    x += width;
  }
  return y + 14;
}

}  // namespace atelier::bench
