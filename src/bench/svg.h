// Charts as SVG: no script, no font, no request; colours follow the reader's light or dark theme.
#pragma once
#include <string>

#include "bench/document.h"

namespace atelier::bench {

enum class SvgUse {
  kAlone,   // a file of its own, with its style
  kInPage,  // the page has chart_style()
};
// Measured values are filled, modelled ones hatched by opacity and dashes, cited ones outlined. A category
// without any value says "not measured here".
std::string svg(const Chart& chart, SvgUse place);
// For the page's <style>.
std::string chart_style();

// & < > " as entities.
std::string escaped(const std::string& text);

}  // namespace atelier::bench
