#include "bench/output.h"

#include "base/files.h"
#include "bench/html.h"
#include "bench/svg.h"
#include "bench/text.h"

namespace atelier::bench {

void write_document(const Document& document, const std::filesystem::path& folder, const std::string& name) {
  write_file_atomically(folder / (name + ".html"), html(document));
  write_file_atomically(folder / (name + ".md"), markdown(document, "charts"));
  write_file_atomically(folder / (name + ".csv"), csv(document));
  for (const auto& section : document.sections) {
    for (const auto& chart : section.charts)
      write_file_atomically(folder / "charts" / (chart.id + ".svg"), svg(chart, SvgUse::kAlone));
  }
}

}  // namespace atelier::bench
