// Shapes and texts of one chart: coordinates in pixels of a drawing that is kWidth wide.
#pragma once
#include <sstream>
#include <string>
#include <vector>

#include "bench/document.h"

namespace atelier::bench {

inline constexpr double kWidth = 720, kLineHeight = 18, kMargin = 12;
// About that much per letter of 12 px; wide enough for the widest sans-serif fonts.
inline constexpr double kLetter = 6.9;
double width_of(const std::string& text);

// Round numbers from 0 to the first at or above `most`, at most `count` steps.
std::vector<double> ticks(double most, int count);

class Drawing {
 public:
  void line(double x1, double y1, double x2, double y2, const char* kind);
  void rect(double x, double y, double width, double height);
  void circle(double x, double y);
  void path(const std::vector<std::pair<double, double>>& points);
  // anchor: "start", "middle", "end"; kind: a class of the style, may be empty.
  void text(double x, double y, const char* anchor, const char* kind, const std::string& text);
  // Shapes between these have the colour of a series and the look of its source.
  void begin(size_t series, Basis source);
  void end();
  std::string take() const { return out_.str(); }

 private:
  std::ostringstream out_;
};

// Title and legend; returns the height they take.
double draw_head(Drawing& drawing, const Chart& chart);
// Both return the height of the drawing. top: where the plot may begin.
double draw_lines(Drawing& drawing, const Chart& chart, double top);
double draw_bars(Drawing& drawing, const Chart& chart, double top);  // kBars and kStacks, lying

}  // namespace atelier::bench
