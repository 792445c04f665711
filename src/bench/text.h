// A document's tables as text: Markdown for people, CSV for programs.
#pragma once
#include <string>

#include "bench/document.h"

namespace atelier::bench {

// Charts are named as files of `charts`, a folder beside it. Cells say modelled and cited where that is what
// they are; what is measured stands in bold.
std::string markdown(const Document& document, const std::string& charts);
// One line for every cell: section, table, row (the cells before its first result), column, value,
// source. [RFC 4180]
std::string csv(const Document& document);

}  // namespace atelier::bench
