// The parity matrix: one request drawn under many layouts, ranks as threads, compared with one rank.
#pragma once
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "base/json.h"

namespace atelier::engine {

struct MatrixRow {
  std::string model, layout, reference;  // reference: "one rank", or the same stale schedule on one rank
  int ranks = 1;
  double max_error = 0;       // of the final latents, over their rms
  bool same_pixels = false;   // the 8-bit pictures are identical
  bool must_match_pixels = false;
  bool passed = false;
  std::string problem;
};

// tests/parity/matrix.json: {"tolerance": .., "cases": [{"model", "request", "exact": [strategy..], "stale": [..]}]}.
// Model folders are relative to `root`. Throws Error(kUsage, kCheckpoint).
std::vector<MatrixRow> run_matrix(const Json& matrix, const std::filesystem::path& root,
                                  const std::function<void(const MatrixRow&)>& on_row);
std::string line_of(const MatrixRow& row);

}  // namespace atelier::engine
