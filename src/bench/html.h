// A document as one HTML page that needs nothing else: charts and pictures are in it, and its
// policy forbids requests.
#pragma once
#include <string>

#include "bench/document.h"

namespace atelier::bench {

std::string html(const Document& document);

}  // namespace atelier::bench
