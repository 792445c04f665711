#include "bench/svg.h"

#include "base/error.h"
#include "bench/drawing.h"

namespace atelier::bench {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string chart_style() {
  return ".chart{--ink:#1b1f24;--soft:#59636e;--grid:#d8dee4;--paper:#fff;--s0:#0067b1;--s1:#c4510a;--s2:#"
         "0a7f5a;"
         "--s3:#8250b4;--s4:#8a6100;--s5:#b0265a;--s6:#55708f;font:12px system-ui,sans-serif}"
         "@media(prefers-color-scheme:dark){.chart{--ink:#e6edf3;--soft:#9da7b1;--grid:#30363d;--paper:#"
         "0d1117;"
         "--s0:#58a6ff;--s1:#ff9b5e;--s2:#4cc38a;--s3:#d2a8ff;--s4:#e3b341;--s5:#ff7b9c;--s6:#9fb4cc}}"
         ".chart text{fill:var(--ink);stroke:var(--paper);stroke-width:3px;paint-order:stroke}.chart "
         ".title{font-size:14px;font-weight:600}.chart "
         ".soft{fill:var(--soft)}"
         ".chart .paper{fill:var(--paper)}.chart .grid{stroke:var(--grid)}.chart "
         ".whisker{stroke:var(--ink);stroke-width:1.5}"
         ".chart .s0{color:var(--s0)}.chart .s1{color:var(--s1)}.chart .s2{color:var(--s2)}.chart "
         ".s3{color:var(--s3)}"
         ".chart .s4{color:var(--s4)}.chart .s5{color:var(--s5)}.chart .s6{color:var(--s6)}"
         ".chart g rect,.chart g circle{fill:currentColor;stroke:currentColor}"
         ".chart g path{fill:none;stroke:currentColor;stroke-width:2.5}"
         ".chart g.modelled rect,.chart g.modelled circle{fill-opacity:.25;stroke-dasharray:3 2}"
         ".chart g.modelled path{stroke-dasharray:7 5}"
         ".chart g.cited rect,.chart g.cited circle{fill:none;stroke-dasharray:1 2;stroke-width:1.5}"
         ".chart g.cited path,.chart g.asked path{stroke-dasharray:2 3}";
}

std::string svg(const Chart& chart, SvgUse place) {
  Drawing drawing;
  const double top = draw_head(drawing, chart);
  const double height =
      chart.kind == ChartKind::kLines ? draw_lines(drawing, chart, top) : draw_bars(drawing, chart, top);
  const bool is_alone = place == SvgUse::kAlone;
  return str("<svg class=\"chart\" ", is_alone ? "xmlns=\"http://www.w3.org/2000/svg\" " : "",
             "role=\"img\" aria-label=\"", escaped(chart.title), "\" viewBox=\"0 0 ", kWidth, " ", height,
             "\">", is_alone ? "<style>" + chart_style() + "</style>" : "",
             "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>", drawing.take(), "</svg>");
}

}  // namespace atelier::bench
