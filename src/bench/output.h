// A document as files.
#pragma once
#include <filesystem>
#include <string>

#include "bench/document.h"

namespace atelier::bench {

// folder/<name>.html, .md and .csv, and charts/<chart>.svg. Throws what writing files throws.
void write_document(const Document& document, const std::filesystem::path& folder,
                    const std::string& name = "report");

}  // namespace atelier::bench
